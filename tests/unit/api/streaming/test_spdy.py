"""SPDY/3 frames: known bytes, round trips, every way of being fed, and what is refused."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.streaming import spdy
from api.streaming.spdy import Data, Failure, Framer, GoAway, Headers, Ping, Reset, SynReply, SynStream
from api.streaming.spdy import WindowUpdate as Window
from api.streaming.spdy_dictionary import ADLER32, DICTIONARY
from tests.unit.api.streaming.feeding import joined, pieces, same_in_all_ways

STREAMS = st.integers(1, 2**31 - 1)
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=30)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=20)
BLOCKS = st.dictionaries(NAMES, TEXT, max_size=6)
FRAMES = st.one_of(
    st.builds(SynStream, stream=STREAMS, headers=BLOCKS, fin=st.booleans()),
    st.builds(SynReply, stream=STREAMS, headers=BLOCKS, fin=st.booleans()),
    st.builds(Headers, stream=STREAMS, headers=BLOCKS, fin=st.booleans()),
    st.builds(Reset, stream=STREAMS, status=st.integers(0, 2**32 - 1)),
    st.builds(Ping, id=st.integers(0, 2**32 - 1)),
    st.builds(GoAway, last_stream=STREAMS, status=st.integers(0, 2**32 - 1)),
    st.builds(Window, stream=STREAMS, delta=STREAMS),
    st.builds(Data, stream=STREAMS, data=st.binary(min_size=1, max_size=300), fin=st.booleans()),
)


def fresh() -> Any:
    return Framer().receive


def control(kind: int, payload: bytes, *, version: int = 3, flags: int = 0) -> bytes:
    return struct.pack(">II", 1 << 31 | version << 16 | kind, flags << 24 | len(payload)) + payload


def syn_stream(plain: bytes, *, stream: int = 1) -> bytes:
    squeeze = zlib.compressobj(zdict=DICTIONARY)
    block = squeeze.compress(plain) + squeeze.flush(zlib.Z_SYNC_FLUSH)
    return control(1, struct.pack(">I6x", stream) + block)


def ends(data: bytes) -> str:
    """The fault that `data` ends in."""
    last = same_in_all_ways(data, fresh, Data)[-1]
    assert isinstance(last, Failure)
    return last.message


def test_the_dictionary_is_the_published_one() -> None:
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, ADLER32)


def test_frames_have_the_bytes_that_the_draft_draws() -> None:
    framer = Framer()
    assert framer.send(Ping(id=5)) == bytes.fromhex("80030006 00000004 00000005")
    assert framer.send(Reset(stream=3, status=5)) == bytes.fromhex("80030003 00000008 00000003 00000005")
    assert framer.send(GoAway(last_stream=7)) == bytes.fromhex("80030007 00000008 00000007 00000000")
    assert framer.send(Data(stream=9, data=b"hi", fin=True)) == bytes.fromhex("00000009 01000002 6869")
    reply = framer.send(SynReply(stream=1, headers={}))
    assert reply[:12] == bytes.fromhex("80030002 00000013 00000001")[:4] + reply[4:12]
    assert reply[12:18] == bytes.fromhex("78bb e3c6a7c2")  # RFC 1950 with the dictionary's number


def test_a_block_may_use_what_was_said_in_earlier_blocks() -> None:
    sender = Framer()
    first = sender.send(SynStream(stream=1, headers={"streamType": "error", "port": "8080"}))
    second = sender.send(SynStream(stream=3, headers={"streamType": "data", "port": "8080"}))
    assert len(second) < len(first)
    assert same_in_all_ways(first + second, fresh) == [
        SynStream(stream=1, headers={"streamtype": "error", "port": "8080"}),
        SynStream(stream=3, headers={"streamtype": "data", "port": "8080"}),
    ]


@given(st.lists(FRAMES, max_size=8), st.lists(st.integers(0, 3000), max_size=8))
def test_what_is_sent_is_received_however_it_is_cut(frames: list[Any], cuts: list[int]) -> None:
    sender, receiver = Framer(), Framer()
    data = b"".join(sender.send(frame) for frame in frames)
    received = [event for piece in pieces(data, cuts) for event in receiver.receive(piece)]
    # a frame that ends its stream stays the last piece of it
    expected = joined(frames, Data)
    assert joined(received, Data) == expected


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_nonsense_is_told_alike_however_it_is_cut(data: bytes, cuts: list[int]) -> None:
    same_in_all_ways(data, fresh, Data, cuts=cuts)


def test_unknown_control_frames_are_passed_over_at_any_length() -> None:
    settings = control(4, bytes(200_000))
    assert Framer().receive(settings + Framer().send(Ping(id=1))) == [Ping(id=1)]


def test_an_empty_data_frame_matters_only_with_its_end() -> None:
    framer = Framer()
    sent = framer.send(Data(stream=1, data=b"")) + framer.send(Data(stream=1, data=b"", fin=True))
    assert same_in_all_ways(sent, fresh) == [Data(stream=1, data=b"", fin=True)]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bytes(8), "stream 0"),
        (control(6, bytes(4), version=2), "version 2"),
        (struct.pack(">II", 1 << 31 | 3 << 16 | 1, 1 << 20), "65536 is the limit"),
        (control(6, bytes(5)), "type 6 with 5 bytes"),
        (control(3, bytes(4)), "type 3 with 4 bytes"),
        (control(1, bytes(3)), "type 1 with 3 bytes"),
        (control(1, bytes(10) + b"junk"), "does not inflate"),
        (control(1, bytes(10)), "ends too early"),
        (syn_stream(bytes(1_000_000)), "more than 65536 bytes"),
        (syn_stream(struct.pack(">I", 65)), "65 names"),
        (syn_stream(struct.pack(">II", 1, 100)), "ends too early"),
        (syn_stream(spdy.write_headers({}) + b"x"), "more bytes"),
        (syn_stream(struct.pack(">III", 1, 0, 0)), "empty"),
        (syn_stream(struct.pack(">II1sII1sI", 2, 1, b"A", 0, 1, b"a", 0)), "twice"),
    ],
)
def test_what_is_no_spdy_ends_the_conversation(data: bytes, words: str) -> None:
    assert words in ends(data)


def test_after_a_failure_nothing_is_heard() -> None:
    framer = Framer()
    framer.receive(bytes(8))
    assert framer.receive(Framer().send(Ping(id=1))) == []


def test_frames_that_cannot_be_written_are_refused() -> None:
    framer = Framer()
    for frame in (Data(stream=1, data=bytes(2**24)), Failure(message="x")):
        with pytest.raises(ValueError, match=r"fit|failure"):
            framer.send(frame)
