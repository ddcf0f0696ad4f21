"""What plugins are given: environment, standard input, capabilities."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from oci.cni import NetworkRequest
from oci.cni.configuration import from_document
from oci.cni.invocation import (
    Verb,
    arguments,
    capability_values,
    environment,
    rate,
    standard_input,
    valid_attachments,
)
from oci.errors import BadInput
from oci.workload import DnsConfig, PodId, PodMetadata, PortMapping

POD = PodId("ab" * 32)
META = PodMetadata(name="web-0", namespace="shop", uid="1-2-3", attempt=4)
REQUEST = NetworkRequest(pod_id=POD, metadata=META, netns="/run/netns/crisp-x")


def test_the_arguments_say_which_pod_it_is() -> None:
    assert arguments(REQUEST) == (
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;"
        f"K8S_POD_INFRA_CONTAINER_ID={POD};K8S_POD_UID=1-2-3"
    )


@pytest.mark.parametrize("field", ["name", "namespace", "uid"])
@pytest.mark.parametrize("value", ["a;CNI_X=1", "a=b", "a\nb", "a\0", "\x7f"])
def test_a_value_that_would_be_another_argument_is_refused_by_its_field(field: str, value: str) -> None:
    with pytest.raises(BadInput, match=rf"config\.metadata\.{field}: "):
        arguments(replace(REQUEST, metadata=replace(META, **{field: value})))


def test_the_environment_is_that_of_the_specification() -> None:
    assert environment(
        Verb.ADD, path=["/a", "/b"], container_id="id", netns="/n", interface="eth0", args="X=1"
    ) == {
        "CNI_COMMAND": "ADD",
        "CNI_PATH": "/a:/b",
        "CNI_CONTAINERID": "id",
        "CNI_NETNS": "/n",
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": "X=1",
    }


def test_del_without_a_namespace_says_so_and_status_names_no_container() -> None:
    assert environment(Verb.DEL, path=["/a"], container_id="id", interface="eth0") == {
        "CNI_COMMAND": "DEL",
        "CNI_PATH": "/a",
        "CNI_CONTAINERID": "id",
        "CNI_NETNS": "",
        "CNI_IFNAME": "eth0",
    }
    assert environment(Verb.STATUS, path=["/a"]) == {"CNI_COMMAND": "STATUS", "CNI_PATH": "/a"}


def test_a_plain_pod_gives_no_capability_a_value() -> None:
    assert capability_values(REQUEST) == {}


def test_every_capability_gets_the_value_of_the_request() -> None:
    request = replace(
        REQUEST,
        port_mappings=(
            PortMapping(protocol="TCP", container_port=80, host_port=8080, host_ip="127.0.0.1"),
            PortMapping(protocol="sctp", container_port=81, host_port=0),
            PortMapping(protocol="udp", container_port=82, host_port=-1),
            PortMapping(protocol="Udp", container_port=53, host_port=53),
        ),
        annotations={"kubernetes.io/ingress-bandwidth": "10M", "team": "a"},
        dns=DnsConfig(servers=("10.0.0.10",), searches=("svc",), options=("ndots:5",)),
        cgroup_parent="/kubepods/pod1",
    )
    assert capability_values(request) == {
        "portMappings": [
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1"},
            {"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": ""},
        ],
        "bandwidth": {"ingressRate": 10_000_000, "ingressBurst": 4294967295},
        "dns": {"servers": ["10.0.0.10"], "searches": ["svc"], "options": ["ndots:5"]},
        "io.kubernetes.cri.pod-annotations": {"kubernetes.io/ingress-bandwidth": "10M", "team": "a"},
        "cgroupPath": "/kubepods/pod1",
    }


@pytest.mark.parametrize(
    ("quantity", "bits"),
    [
        ("1k", 1000),
        ("10M", 10**7),
        ("1.5G", 1_500_000_000),
        ("1Ki", 1024),
        ("2e6", 2_000_000),
        ("1P", 10**15),
    ],
)
def test_quantities_are_bits_per_second(quantity: str, bits: int) -> None:
    assert rate(quantity, field="f") == bits


@pytest.mark.parametrize(
    "quantity", ["", "M", "-1M", "1m", "10 M", "1M\n", "0", "999", "2P", "1e99", "٣M", "."]
)
def test_what_is_no_bandwidth_is_refused(quantity: str) -> None:
    with pytest.raises(BadInput, match="f: "):
        rate(quantity, field="f")


def given(*, version: str = "1.0.0", **arguments: Any) -> Mapping[str, Any]:
    plugin = {
        "type": "double",
        "key": [1],
        "capabilities": {"portMappings": True, "dns": True, "mac": True},
        "runtimeConfig": {"own": 1},
    }
    document = {"name": "pods", "cniVersion": version, "plugins": [plugin]}
    network = from_document(document, source="x")
    decoded: Mapping[str, Any] = json.loads(standard_input(network, network.plugins[0], **arguments))
    return decoded


def test_a_plugin_gets_its_keys_the_networks_name_and_version_and_no_capabilities() -> None:
    assert given() == {
        "type": "double",
        "key": [1],
        "runtimeConfig": {"own": 1},
        "name": "pods",
        "cniVersion": "1.0.0",
    }


def test_a_plugin_gets_the_values_that_it_declares_and_the_result_so_far() -> None:
    answer = {"cniVersion": "1.0.0", "ips": []}
    found = given(capabilities={"portMappings": [1], "bandwidth": {"x": 1}}, previous=answer)
    assert found["runtimeConfig"] == {"own": 1, "portMappings": [1]}
    assert found["prevResult"] == answer


def test_collection_is_told_what_to_keep_under_both_keys() -> None:
    listed = [{"containerID": POD, "ifname": "eth0"}]
    told = valid_attachments([(POD, "eth0")])
    assert told == {"cni.dev/valid-attachments": listed, "cni.dev/attachments": listed}
    assert given(extra=told)["cni.dev/valid-attachments"] == listed
