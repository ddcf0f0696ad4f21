"""Each streamed list tells what its unary call tells, once, and nothing at all for nothing."""

from __future__ import annotations

from typing import Any

import pytest

from api.proto import cri_pb2
from tests.component.cri.client import Client


def by_id(items: Any) -> dict[str, Any]:
    found = {item.id: item for item in items}
    assert len(found) == len(items)
    return found


def test_pods_and_containers_are_streamed_as_they_are_listed(client: Client) -> None:
    pods = [client.run_pod(labels={"n": str(n)}) for n in range(3)]
    containers = [client.create(pod) for pod in pods]

    listed = client.call("ListPodSandbox", cri_pb2.ListPodSandboxRequest()).items
    messages = list(client.call("StreamPodSandboxes", cri_pb2.StreamPodSandboxesRequest()))
    assert all(message.pod_sandboxes for message in messages)
    streamed = by_id([item for message in messages for item in message.pod_sandboxes])
    assert (streamed, set(streamed)) == (by_id(listed), set(pods))

    listed = client.call("ListContainers", cri_pb2.ListContainersRequest()).containers
    messages = list(client.call("StreamContainers", cri_pb2.StreamContainersRequest()))
    streamed = by_id([item for message in messages for item in message.containers])
    assert (streamed, set(streamed)) == (by_id(listed), set(containers))

    one = cri_pb2.PodSandboxFilter(label_selector={"n": "1"})
    messages = list(client.call("StreamPodSandboxes", cri_pb2.StreamPodSandboxesRequest(filter=one)))
    assert [item.id for message in messages for item in message.pod_sandboxes] == [pods[1]]


def test_usage_and_images_are_streamed_too(client: Client) -> None:
    running = client.run(client.run_pod())
    messages = list(client.call("StreamContainerStats", cri_pb2.StreamContainerStatsRequest()))
    assert [item.attributes.id for message in messages for item in message.container_stats] == [running]
    listed = client.images.ListImages(cri_pb2.ListImagesRequest(), timeout=10).images
    streamed = list(client.images.StreamImages(cri_pb2.StreamImagesRequest(), timeout=10))
    assert by_id([item for message in streamed for item in message.images]) == by_id(listed)
    assert listed


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("StreamPodSandboxes", cri_pb2.StreamPodSandboxesRequest()),
        ("StreamContainers", cri_pb2.StreamContainersRequest()),
        ("StreamContainerStats", cri_pb2.StreamContainerStatsRequest()),
    ],
)
def test_an_empty_list_is_no_message(client: Client, method: str, request_: Any) -> None:
    assert list(client.call(method, request_)) == []


def test_the_pod_address_range_is_taken_note_of_without_effect(client: Client) -> None:
    for cidr in ("", "10.85.0.0/16,fd00::/64"):
        config = cri_pb2.RuntimeConfig(network_config=cri_pb2.NetworkConfig(pod_cidr=cidr))
        request = cri_pb2.UpdateRuntimeConfigRequest(runtime_config=config)
        assert client.call("UpdateRuntimeConfig", request) == cri_pb2.UpdateRuntimeConfigResponse()
