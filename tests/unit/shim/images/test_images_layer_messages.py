"""What daemon and process say to each other is understood as it was meant, and nothing else is."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from oci.errors import Absent, BadInput, Busy, CrispError, Full, Internal
from shim.images.fetching import MadeLayer
from shim.images.layer_messages import Ended, Event, Progress, frame, line, read_frame, read_line
from shim.images.layout import Layout
from shim.images.progress import Phase
from shim.images.receive import Received
from shim.images.settings import Limits

JOB = MadeLayer(
    tar=b"tar", diff_id="sha256:0", layout=Layout(Path("/store")), limits=Limits(layers=3), what="image x"
)


def test_frames_come_out_as_they_went_in_until_the_pipe_is_closed() -> None:
    stream = io.BytesIO(frame(1, JOB) + frame(2, None))
    assert [read_frame(stream) for _ in range(3)] == [(1, JOB), (2, None), None]


@pytest.mark.parametrize("length", [2, 10])
def test_a_frame_that_was_cut_by_a_death_is_no_frame(length: int) -> None:
    assert read_frame(io.BytesIO(frame(1, None)[:length])) is None


@pytest.mark.parametrize(
    "event",
    [
        Progress(received=5, total=9, phase=Phase.DOWNLOADING),
        Received(tar=Path("/a"), index=Path("/b"), inodes=7, implied=(b"", b"a/\xff\n\xc3")),
        Ended(),
    ],
)
def test_an_event_comes_out_as_it_went_in(event: Event) -> None:
    text = line(3, event)
    assert text.count(b"\n") == 1
    assert read_line(text) == (3, event)


@pytest.mark.parametrize(
    "error", [Absent("a"), BadInput("b"), Busy("c", token="RegistryUnavailable"), Full("d"), Internal("e\nf")]
)
def test_an_error_keeps_its_kind_words_and_token(error: CrispError) -> None:
    number, read = read_line(line(4, error))
    assert number == 4
    assert type(read) is type(error)
    assert str(read) == str(error)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"nonsense",
        b'[1,"done"]',
        b'[1,"progress",1,2,"no such phase"]',
        b'["1","ended"]',
        b'[1,"done","/a","/b",1,["\\u0400"]]',
    ],
)
def test_anything_else_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        read_line(text)
