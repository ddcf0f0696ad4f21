"""Exec, Attach and PortForward: what is refused, and what the URL looks like."""

from __future__ import annotations

import re
from typing import Any

import pytest

from api.proto import cri_pb2
from oci.errors import Absent, BadInput
from tests.unit.api import requests
from tests.unit.api.test_runtime_service import OTHER_CONTAINER, OTHER_POD, World, answer

CONTAINER, POD = requests.CONTAINER_ID, requests.POD_ID
URL = re.compile(r"http://127\.0\.0\.1:10010/(exec|attach|portforward)/[\w-]{22}")


def exec_request(**changed: Any) -> cri_pb2.ExecRequest:
    given = {"container_id": CONTAINER, "cmd": ["true"], "stdout": True, **changed}
    return cri_pb2.ExecRequest(**given)


def test_each_call_answers_with_a_url_of_its_kind() -> None:
    service = World().service
    attach = cri_pb2.AttachRequest(container_id=CONTAINER, stdin=True)
    forward = cri_pb2.PortForwardRequest(pod_sandbox_id=POD, port=[80, 65535])
    urls = [
        answer(service.exec(exec_request())).url,
        answer(service.attach(attach)).url,
        answer(service.port_forward(forward)).url,
    ]
    found = [URL.fullmatch(url) for url in urls]
    assert [match and match[1] for match in found] == ["exec", "attach", "portforward"]
    assert len({url.rpartition("/")[2] for url in urls}) == 3


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"container_id": ""}, "container_id"),
        ({"cmd": []}, "cmd"),
        ({"cmd": ["a\0b"]}, "cmd[0]"),
        ({"stdout": False}, "stdin, stdout, stderr"),
        ({"tty": True, "stderr": True}, "stderr"),
    ],
)
def test_an_exec_that_cannot_be_is_refused_by_its_field(changed: dict[str, Any], field: str) -> None:
    with pytest.raises(BadInput) as refusal:
        answer(World().service.exec(exec_request(**changed)))
    assert refusal.value.message.startswith(field)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (cri_pb2.PortForwardRequest(), "pod_sandbox_id"),
        (cri_pb2.PortForwardRequest(pod_sandbox_id=POD, port=[80, 0]), "port[1]"),
        (cri_pb2.PortForwardRequest(pod_sandbox_id=POD, port=[65536]), "port[0]"),
        (cri_pb2.PortForwardRequest(pod_sandbox_id=POD, port=[1] * 128), "port"),
    ],
)
def test_a_port_forward_that_cannot_be_is_refused_by_its_field(
    request_: cri_pb2.PortForwardRequest, field: str
) -> None:
    with pytest.raises(BadInput) as refusal:
        answer(World().service.port_forward(request_))
    assert refusal.value.message.startswith(f"{field}:")


def test_an_attach_that_asks_for_nothing_is_refused() -> None:
    with pytest.raises(BadInput):
        answer(World().service.attach(cri_pb2.AttachRequest(container_id=CONTAINER)))


def test_nothing_of_another_realm_can_be_connected_to() -> None:
    service = World().service
    with pytest.raises(Absent):
        answer(service.exec(exec_request(container_id=OTHER_CONTAINER)))
    with pytest.raises(Absent):
        answer(service.attach(cri_pb2.AttachRequest(container_id=OTHER_CONTAINER, stdout=True)))
    with pytest.raises(Absent):
        answer(service.port_forward(cri_pb2.PortForwardRequest(pod_sandbox_id=OTHER_POD)))
