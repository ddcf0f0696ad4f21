"""A signature policy as kubelet meets it: at PullImage and at CreateContainer, by namespace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from api.proto import cri_pb2
from tests.component.cri.client import Client
from tests.daemon import CALL_LIMIT, Daemon, running
from tests.images import catalogue
from tests.images.registry import Registry

ANYTHING: Any = {"default": [{"type": "insecureAcceptAnything"}]}
REJECT: Any = {"default": [{"type": "reject"}]}


@pytest.fixture
def node(prepared_machine: None, image_registry: Registry, tmp_path: Path) -> Iterator[Daemon]:
    (tmp_path / "policies").mkdir()
    trust = {"policy": str(tmp_path / "policy.json"), "policy_dir": str(tmp_path / "policies")}
    with running(image_registry, overrides={"images.trust": trust}) as daemon:
        yield daemon


def refused(call: Any, request: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=CALL_LIMIT)
    return caught.value.code(), caught.value.details()


def test_what_the_policy_refuses_is_neither_pulled_nor_run(node: Daemon, tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    client = Client(node)
    image = cri_pb2.ImageSpec(image=catalogue.BUSYBOX)
    pull = cri_pb2.PullImageRequest(image=image)
    words = f"SignatureValidationFailed: {catalogue.BUSYBOX}: rejected by {policy}: default"
    policy.write_text(json.dumps(REJECT))
    assert refused(client.images.PullImage, pull) == (grpc.StatusCode.UNKNOWN, words)
    assert client.images.ListImages(cri_pb2.ListImagesRequest(), timeout=CALL_LIMIT).images == []

    policy.write_text(json.dumps(ANYTHING))
    client.pull()
    pod = client.run_pod(host_network=True)
    request = cri_pb2.CreateContainerRequest(
        pod_sandbox_id=pod,
        config=cri_pb2.ContainerConfig(
            metadata=cri_pb2.ContainerMetadata(name="c"),
            image=image,
            command=["sleep", "1000"],
            linux=cri_pb2.LinuxContainerConfig(
                security_context=cri_pb2.LinuxContainerSecurityContext(
                    namespace_options=cri_pb2.NamespaceOption(network=cri_pb2.NODE, pid=cri_pb2.CONTAINER)
                )
            ),
        ),
        sandbox_config=client.pods[pod],
    )
    policy.write_text(json.dumps(REJECT))
    assert refused(client.runtime.CreateContainer, request) == (grpc.StatusCode.UNKNOWN, words)
    containers = cri_pb2.ListContainersRequest()
    assert client.runtime.ListContainers(containers, timeout=CALL_LIMIT).containers == []

    namespace = client.pods[pod].metadata.namespace
    (tmp_path / f"policies/{namespace}.json").write_text(json.dumps(ANYTHING))
    assert client.runtime.CreateContainer(request, timeout=CALL_LIMIT).container_id
    pull = cri_pb2.PullImageRequest(image=image, sandbox_config=client.pods[pod])
    assert client.images.PullImage(pull, timeout=CALL_LIMIT).image_ref

    mount = cri_pb2.Mount(
        image=cri_pb2.ImageSpec(image=catalogue.BUSYBOX), container_path="/volume", readonly=True
    )
    request.config.metadata.attempt = 1
    request.config.mounts.append(mount)
    (tmp_path / f"policies/{namespace}.json").write_text(
        json.dumps(
            {
                **REJECT,
                "transports": {"docker": {catalogue.BUSYBOX.partition("/")[0]: REJECT["default"]}},
            }
        )
    )
    code, said = refused(client.runtime.CreateContainer, request)
    assert (code, said.partition(":")[0]) == (grpc.StatusCode.UNKNOWN, "SignatureValidationFailed")
