"""No value of any field of any request is an internal error, a leak or a hang; what is wrong is named."""

from __future__ import annotations

import itertools
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, Phase, given, settings

from api.proto import cri_pb2
from tests import figures
from tests.component.cri import walk
from tests.component.cri.client import Client
from tests.component.cri.requests import MAKES, Requests

METHODS = {
    method.name: (service.name, method)
    for service in cri_pb2.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
LARGE = ("CreateContainer", "PullImage", "RestorePod", "RunPodSandbox", "UpdateContainerResources")
SMALL = sorted(set(METHODS) - set(LARGE))

LIMIT = 30.0
"""Seconds that any call may take here; one that takes longer hangs."""

REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED,
}
_WHOLE = ("config", "sandbox_config", "linux")
TOKENS = ("RegistryUnavailable", "SignatureValidationFailed", "RROUnsupported", "ImageVolumeMountFailed")


@pytest.fixture
def requests(client: Client) -> Requests:
    return Requests(client)


def attempt(client: Client, method: str, request: Message) -> grpc.RpcError | None:
    """Make the call, and undo what it made; the error, None for success."""
    service, described = METHODS[method]
    stub = client.images if service == "ImageService" else client.runtime
    try:
        answer = getattr(stub, method)(request, timeout=LIMIT)
        if method == "GetContainerEvents":  # it has no end; that it stands is told before
            answer.initial_metadata()
            answer.cancel()
        elif described.server_streaming:
            list(answer)
    except grpc.RpcError as error:
        return error
    if method in MAKES:
        MAKES[method](client, answer)
    return None


def complaint(error: grpc.RpcError | None, changes: tuple[walk.Change, ...]) -> str:
    """What is wrong with the answer, "" for a good one."""
    if error is None:
        return ""
    code, words = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNKNOWN and words.startswith(TOKENS):
        return ""
    if code not in REFUSALS:
        return f"{code.name}: {words}"
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        # A wrapper's only member is called "value"; what a change has made may be wrong as a whole.
        names = {name for change in changes for name in change.path[-3:-1]} - set(_WHOLE)
        names |= {change.path[-1] for change in changes} - {"value"}
        if not any(name in words for name in names):
            return f"{code.name} without a name of {sorted(names)}: {words[:300]}"
    return ""


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("methods", [[name] for name in LARGE] + [SMALL], ids=[*LARGE, "the others"])
def test_each_field_with_each_value_is_served_or_refused_by_its_name(
    client: Client,
    requests: Requests,
    methods: list[str],
    request: pytest.FixtureRequest,
) -> None:
    stride = request.config.getoption("--walk-stride")
    bad: list[str] = []
    for method in methods:
        kind = GetMessageClass(METHODS[method][1].input_type)
        count = 1
        assert not complaint(attempt(client, method, requests.valid(method)), ()), (
            f"{method}, a valid request"
        )
        for change in itertools.islice(walk.changes(kind.DESCRIPTOR), 0, None, stride):
            message = requests.valid(method)
            change.to(message)
            count += 1
            if wrong := complaint(attempt(client, method, message), (change,)):
                bad.append(f"{method}: {change.field} {change.what}: {wrong}")
        figures.count("field walk", method, count)
    assert not bad, "\n".join(bad)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("method", ["RunPodSandbox", "CreateContainer", "UpdateContainerResources"])
def test_values_that_contradict_each_other_are_refused_too(
    client: Client,
    requests: Requests,
    method: str,
    request: pytest.FixtureRequest,
) -> None:
    kind: Any = GetMessageClass(METHODS[method][1].input_type)
    count = 0

    @settings(
        max_examples=max(2000 // request.config.getoption("--walk-stride") ** 2, 10),
        phases=[Phase.explicit, Phase.generate],
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(walk.contradictions(kind.DESCRIPTOR))
    def run(changes: tuple[walk.Change, ...]) -> None:
        nonlocal count
        message = requests.valid(method)
        for change in changes:
            change.to(message)
        count += 1
        wrong = complaint(attempt(client, method, message), changes)
        assert wrong == "", [f"{change.field} {change.what}" for change in changes]

    run()
    figures.count("field walk", f"{method}, several fields", count)
