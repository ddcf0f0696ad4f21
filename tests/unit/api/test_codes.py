from __future__ import annotations

import re

import grpc
import pytest

from api import codes
from oci import errors

KINDS = [
    (errors.Absent, grpc.StatusCode.NOT_FOUND),
    (errors.Duplicate, grpc.StatusCode.ALREADY_EXISTS),
    (errors.WrongState, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.BadInput, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.Busy, grpc.StatusCode.UNAVAILABLE),
    (errors.Deadline, grpc.StatusCode.DEADLINE_EXCEEDED),
    (errors.Full, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.Unsupported, grpc.StatusCode.UNIMPLEMENTED),
    (errors.Internal, grpc.StatusCode.INTERNAL),
]


@pytest.mark.parametrize(("kind", "code"), KINDS)
def test_each_kind_has_its_code_and_comes_back_as_itself(
    kind: type[errors.CrispError], code: grpc.StatusCode
) -> None:
    told = codes.outcome(kind("pods: no such thing"))
    assert told == codes.Outcome(code=code, message="pods: no such thing", kind=kind.kind)
    assert type(codes.error_from(told.code, told.message)) is kind


def subclasses(of: type[errors.CrispError]) -> set[type[errors.CrispError]]:
    return {of}.union(*(subclasses(one) for one in of.__subclasses__()))


def test_no_kind_is_without_a_code() -> None:
    assert {one.kind for one in subclasses(errors.CrispError)} == set(codes.CODES)


def test_an_error_with_a_token_is_unknown_and_begins_with_it() -> None:
    told = codes.outcome(errors.Busy("registry.example: connection refused", token="RegistryUnavailable"))
    assert told.code is grpc.StatusCode.UNKNOWN
    assert told.message == "RegistryUnavailable: registry.example: connection refused"


def test_an_unforeseen_error_shows_a_reference_and_not_its_text() -> None:
    told = codes.outcome(ValueError("password=hunter2"))
    assert told.code is grpc.StatusCode.INTERNAL
    assert re.fullmatch(r"[0-9a-f]{8}", told.reference)
    assert told.message == f"internal error (ValueError), see {told.reference} in crispd's log"


@pytest.mark.parametrize("filler", ["x", "é", "\n", "%", "\udcff"])
def test_a_long_message_keeps_its_beginning_and_its_end_within_the_trailers(filler: str) -> None:
    fitted = codes.fit("runtime create: " + filler * 20000 + ": permission denied")
    assert fitted.startswith("runtime create: ")
    assert fitted.endswith(": permission denied")
    assert sum(1 if 0x20 <= byte <= 0x7E and byte != 0x25 else 3 for byte in fitted.encode()) <= 6000


def test_a_short_message_is_not_touched() -> None:
    assert codes.fit("a\nb") == "a\nb"
