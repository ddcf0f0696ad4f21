"""What shims publish is taken apart without protobuf: held against protobuf's own reading of it."""

from __future__ import annotations

import struct

import pytest
from google.protobuf import empty_pb2
from hypothesis import given
from hypothesis import strategies as st

from shim.logger import events
from shim.logger.events import Conversation, fields
from shim.runtimes.shimv2.proto import events_pb2, task_events_pb2, ttrpc_pb2
from shim.runtimes.shimv2.ttrpc import frames
from shim.runtimes.shimv2.ttrpc.frames import Decoder, Frame, encode

SERVICE = "containerd.services.events.ttrpc.v1.Events"


def request(topic: str, payload: bytes, *, service: str = SERVICE, method: str = "Forward") -> bytes:
    forward = events_pb2.ForwardRequest()
    forward.envelope.timestamp.FromNanoseconds(1_700_000_000_123_456_789)
    forward.envelope.namespace = "crisp"
    forward.envelope.topic = topic
    forward.envelope.event.type_url = "containerd.events.TaskOOM"
    forward.envelope.event.value = payload
    message = ttrpc_pb2.Request(
        service=service, method=method, payload=forward.SerializeToString(), timeout_nano=5_000_000_000
    )
    message.metadata.add(key="containerd-namespace-ttrpc", value="crisp")
    return message.SerializeToString()


def framed(stream: int, payload: bytes) -> bytes:
    return encode(Frame(stream=stream, type=frames.REQUEST, payload=payload))


def answers(data: bytes) -> list[tuple[int, ttrpc_pb2.Response]]:
    return [(frame.stream, ttrpc_pb2.Response.FromString(frame.payload)) for frame in Decoder().receive(data)]


OOM = request("/tasks/oom", task_events_pb2.TaskOOM(container_id="abc").SerializeToString())
EXIT = request("/tasks/exit", task_events_pb2.TaskExit(container_id="abc", pid=7).SerializeToString())


def test_every_event_is_answered_with_success_and_a_kill_is_told() -> None:
    said, killed = Conversation().receive(framed(1, EXIT) + framed(3, OOM))
    assert killed == [b"abc"]
    assert [(stream, response.HasField("status")) for stream, response in answers(said)] == [
        (1, False),
        (3, False),
    ]
    assert [empty_pb2.Empty.FromString(response.payload) for _, response in answers(said)] == [
        empty_pb2.Empty(),
        empty_pb2.Empty(),
    ]


def test_it_makes_no_difference_how_the_bytes_arrive() -> None:
    data = framed(1, EXIT) + framed(3, OOM) + framed(5, OOM)
    whole = Conversation().receive(data)
    bytewise = Conversation()
    pieces = [bytewise.receive(data[at : at + 1]) for at in range(len(data))]
    assert (b"".join(said for said, _ in pieces), [one for _, told in pieces for one in told]) == whole


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (request("/tasks/oom", b"", service="containerd.task.v2.Task"), 12),
        (request("/tasks/oom", b"", method="Publish"), 12),
        (b"\xff\xff", 3),
        (request("/tasks/oom", b"\x0a\x7f"), 3),
    ],
    ids=["another service", "another method", "no request", "an event that is cut off"],
)
def test_what_is_no_event_is_refused_and_the_conversation_goes_on(payload: bytes, code: int) -> None:
    said, killed = Conversation().receive(framed(7, payload) + framed(9, OOM))
    found = answers(said)
    assert [(stream, response.status.code) for stream, response in found] == [(7, code), (9, 0)]
    assert found[0][1].status.message
    assert killed == [b"abc"]


@pytest.mark.parametrize(
    "header",
    [struct.pack(">IIBB", 3, 1, 2, 0), struct.pack(">IIBB", events.LONGEST + 1, 1, 1, 0)],
    ids=["a response", "over the limit"],
)
def test_who_breaks_the_protocol_is_cut_off(header: bytes) -> None:
    with pytest.raises(ValueError, match="frame of type"):
        Conversation().receive(header)


@given(st.text(), st.binary(), st.integers(-(2**63), 2**63 - 1))
def test_fields_are_read_as_protobuf_reads_them(service: str, payload: bytes, timeout: int) -> None:
    message = ttrpc_pb2.Request(service=service, payload=payload, timeout_nano=timeout)
    found = fields(message.SerializeToString())
    assert (found.get(1, b"").decode(), found.get(3, b"")) == (service, payload)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader_in_another_way(data: bytes) -> None:
    try:
        fields(data)
    except ValueError:
        pass
    try:
        Conversation().receive(data)
    except ValueError:
        pass
