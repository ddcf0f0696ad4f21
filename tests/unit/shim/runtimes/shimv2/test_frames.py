"""ttrpc's frames come out equal however the bytes were split; what breaks the protocol is told."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.runtimes.shimv2.ttrpc import frames
from shim.runtimes.shimv2.ttrpc.frames import BadFrame, Decoder, Frame, Oversized, encode

FRAMES = st.builds(
    Frame,
    stream=st.integers(0, 0xFFFFFFFF),
    type=st.sampled_from((frames.REQUEST, frames.RESPONSE, frames.DATA)),
    flags=st.integers(0, 255),
    payload=st.binary(max_size=300),
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({cut % (len(data) + 1) for cut in cuts} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@given(st.lists(FRAMES, max_size=8), st.lists(st.integers(0, 10_000), max_size=12))
def test_frames_come_out_as_they_went_in_however_they_were_split(sent: list[Frame], cuts: list[int]) -> None:
    data = b"".join(map(encode, sent))
    whole, bytewise, cut = Decoder(), Decoder(), Decoder()
    assert list(whole.receive(data)) == sent
    assert [f for at in range(len(data)) for f in bytewise.receive(data[at : at + 1])] == sent
    assert [f for piece in pieces(data, cuts) for f in cut.receive(piece)] == sent
    assert (whole.torn, bytewise.torn, cut.torn) == (False, False, False)


def test_a_frame_has_ten_bytes_before_its_payload() -> None:
    frame = Frame(stream=7, type=frames.REQUEST, flags=3, payload=b"abc")
    assert encode(frame) == b"\x00\x00\x00\x03\x00\x00\x00\x07\x01\x03abc"


def test_a_payload_over_the_limit_is_not_sent_and_is_skipped_when_it_comes() -> None:
    with pytest.raises(Oversized, match="4194305 bytes"):
        encode(Frame(stream=1, type=frames.REQUEST, payload=bytes(frames.LONGEST + 1)))
    decoder = Decoder()
    after = Frame(stream=3, type=frames.RESPONSE, payload=b"next")
    length = frames.LONGEST + 1
    data = struct.pack(">IIBB", length, 1, frames.RESPONSE, 0) + bytes(length) + encode(after)
    found = [f for at in range(0, len(data), 65536) for f in decoder.receive(data[at : at + 65536])]
    assert found == [Frame(stream=1, type=frames.RESPONSE, overlong=length), after]


@pytest.mark.parametrize("type_", [0, 4, 255])
def test_a_type_that_does_not_exist_ends_the_conversation(type_: int) -> None:
    with pytest.raises(BadFrame, match=f"type {type_} on stream 5"):
        list(Decoder().receive(struct.pack(">IIBB", 0, 5, type_, 0)))


@pytest.mark.parametrize("cut", [1, 9, 10, 12])
def test_an_end_within_a_frame_is_seen(cut: int) -> None:
    decoder = Decoder()
    data = encode(Frame(stream=1, type=frames.RESPONSE, payload=b"abc"))
    assert list(decoder.receive(data[:cut])) == []
    assert decoder.torn


@given(st.binary(max_size=400))
def test_no_bytes_break_the_decoder_in_another_way(data: bytes) -> None:
    decoder = Decoder()
    try:
        for frame in decoder.receive(data):
            assert frame.type in (frames.REQUEST, frames.RESPONSE, frames.DATA)
    except BadFrame:
        pass
