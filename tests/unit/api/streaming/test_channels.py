"""The last word in every version, what clients read in it, and terminal sizes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.streaming.channels import (
    SPDY,
    WEBSOCKET,
    Channel,
    Ended,
    Failed,
    Outcome,
    Sizes,
    Wanted,
    last_word,
    read_last_word,
)

ALL = {f"spdy {name}": version for name, version in SPDY.items()}
ALL |= {f"websocket {name}": version for name, version in WEBSOCKET.items()}


def test_a_status_is_what_kubectl_looks_for() -> None:
    version = SPDY["v4.channel.k8s.io"]
    outcomes: list[Outcome] = [Ended(code=0), Ended(), Ended(code=7)]
    said = {outcome: json.loads(last_word(outcome, version)) for outcome in outcomes}
    assert said == {
        Ended(code=0): {"metadata": {}, "status": "Success"},
        Ended(): {"metadata": {}, "status": "Success"},
        Ended(code=7): {
            "metadata": {},
            "status": "Failure",
            "reason": "NonZeroExitCode",
            "message": "command terminated with exit code 7",
            "details": {"causes": [{"reason": "ExitCode", "message": "7"}]},
        },
    }
    assert json.loads(last_word(Failed(message="no such file"), version)) == {
        "metadata": {},
        "status": "Failure",
        "reason": "InternalError",
        "code": 500,
        "message": "no such file",
    }


@pytest.mark.parametrize("name", ["v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"])
def test_old_versions_say_nothing_on_success_and_text_on_failure(name: str) -> None:
    outcomes = (Ended(code=0), Ended(), Ended(code=3), Failed(message="broken"))
    assert [last_word(outcome, SPDY[name]) for outcome in outcomes] == [
        b"", b"", b"command terminated with exit code 3", b"broken",
    ]  # fmt: skip


@pytest.mark.parametrize("name", [name for name, version in ALL.items() if version.status])
@given(st.one_of(st.builds(Ended, code=st.integers(0, 255)), st.builds(Failed, message=st.text(max_size=50))))
def test_what_is_said_last_is_understood(name: str, outcome: Outcome) -> None:
    assert read_last_word(last_word(outcome, ALL[name])) == outcome


@pytest.mark.parametrize("said", [b"no json", b"[1]", b"[" * 5000])
def test_words_that_are_no_status_are_a_failure(said: bytes) -> None:
    assert read_last_word(said) == Failed(message=said.decode())


def test_resize_is_a_stream_only_with_a_terminal_and_a_version_that_has_it() -> None:
    tty = Wanted(stdin=True, stdout=True, stderr=False, tty=True)
    basic = {Channel.STDIN, Channel.STDOUT, Channel.ERROR}
    with_resize = basic | {Channel.RESIZE}
    assert {name: tty.channels(version) for name, version in SPDY.items()} == {
        "v4.channel.k8s.io": with_resize,
        "v3.channel.k8s.io": with_resize,
        "v2.channel.k8s.io": basic,
        "channel.k8s.io": basic,
    }
    plain = Wanted(stdin=False, stdout=True, stderr=True, tty=False)
    assert plain.channels(SPDY["v4.channel.k8s.io"]) == {Channel.STDOUT, Channel.STDERR, Channel.ERROR}


def test_sizes_are_read_out_of_a_stream_of_objects() -> None:
    stream = b'{"Width":80,"Height":24}{"Width":0,"Height":0}\n{"Height":1,"Width":2}'
    stream += b'{"Width":70000,"Height":1}junk}'
    whole = Sizes().receive(stream)
    bytewise = Sizes()
    assert [size for byte in stream for size in bytewise.receive(bytes([byte]))] == whole
    assert whole == [(80, 24), (2, 1)]


def test_an_endless_size_is_not_kept() -> None:
    sizes = Sizes()
    for _ in range(100):
        assert sizes.receive(b"[" * 1000) == []
    assert sizes.receive(b'}{"Width":80,"Height":24}') == [(80, 24)]
