"""Command lines of runtimes as values, and their recorded words by what they mean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oci import commandline
from oci.commandline import Phase, Runtime, RuntimeState
from oci.errors import Absent, CrispError, RuntimeFailed, WrongState

RUNC = Runtime(handler="h", program=Path("/usr/sbin/runc"), root=Path("/run/r"), options=("--debug",))
LOG = Path("/run/l")
HEAD = ["/usr/sbin/runc", "--root=/run/r", "--log=/run/l", "--log-format=json", "--debug"]


def test_every_verb_is_composed() -> None:
    assert {
        "start": commandline.start(RUNC, LOG, "c"),
        "state": commandline.state(RUNC, LOG, "c"),
        "kill": commandline.kill(RUNC, LOG, "c", 15),
        "kill all": commandline.kill(RUNC, LOG, "c", 9, everything=True),
        "delete": commandline.delete(RUNC, LOG, "c"),
        "delete_by_force": commandline.delete_by_force(RUNC, LOG, "c"),
        "exec": commandline.execute(RUNC, LOG, "c", process=Path("/p"), pid_file=Path("/f")),
        "exec in": commandline.execute(
            RUNC, LOG, "c", process=Path("/p"), pid_file=Path("/f"), cgroup="freezer:e"
        ),
        "update": commandline.update(RUNC, LOG, "c", resources=Path("/run/r")),
    } == {
        "start": [*HEAD, "start", "c"],
        "state": [*HEAD, "state", "c"],
        "kill": [*HEAD, "kill", "c", "15"],
        "kill all": [*HEAD, "kill", "--all", "c", "9"],
        "delete": [*HEAD, "delete", "c"],
        "delete_by_force": [*HEAD, "delete", "--force", "c"],
        "exec": [*HEAD, "exec", "--process=/p", "--pid-file=/f", "c"],
        "exec in": [*HEAD, "exec", "--process=/p", "--pid-file=/f", "--cgroup=freezer:e", "c"],
        "update": [*HEAD, "update", "--resources=/run/r", "c"],
    }


def test_the_systemd_flag_stands_before_the_verb() -> None:
    runtime = Runtime(handler="h", program=Path("/r"), root=Path("/x"), systemd_cgroup=True)
    assert commandline.start(runtime, LOG, "c") == [
        "/r", "--root=/x", "--log=/run/l", "--log-format=json", "--systemd-cgroup", "start", "c"
    ]  # fmt: skip


def test_state_is_read() -> None:
    runc = b'{"ociVersion": "1.0.2-dev", "id": "x", "pid": 16485, "status": "created", "owner": ""}'
    assert commandline.parse_state(runc) == RuntimeState(phase=Phase.CREATED, pid=16485)
    assert commandline.parse_state(b'{"status": "stopped"}') == RuntimeState(phase=Phase.STOPPED, pid=0)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"[]", b"{}", b'{"status": "dreaming", "pid": 1}', b'{"status": "running", "pid": "1"}',
     b'{"status": "running", "pid": -2}'],
)  # fmt: skip
def test_nonsense_is_no_state(data: bytes) -> None:
    with pytest.raises(ValueError, match="state printed"):
        commandline.parse_state(data)


def test_the_last_error_of_a_log_counts() -> None:
    lines = [
        '{"level":"warning","msg":"w"}',
        '{"level":"error","msg":"first"}',
        "not json",
        "[]",
        '{"level": 5}',
        '{"msg":"second","level":"error","time":"t"}',
        '{"level":"info","msg":"i"}',
    ]
    assert commandline.parse_log("\n".join(lines).encode()) == "second"
    assert commandline.parse_log(b'{"level":"ERROR","fields":{"message":"nested"}}') == "nested"
    assert commandline.parse_log(b'{"level":"error","msg":"bad \xff"}') == "bad �"
    assert commandline.parse_log(b"") == ""
    youki = (
        b'{"level":"ERROR","message":"no\\n\\nCaused by:\\n    it\\n\\nStack backtrace:\\n   0: <unknown>"}'
    )
    assert commandline.parse_log(youki) == "no\n\nCaused by:\n    it"


@pytest.mark.parametrize("sample", json.loads(Path("tests/golden/runtimes/words.json").read_text()))
def test_recorded_words_are_told_apart(sample: dict[str, str]) -> None:
    kinds: dict[str, tuple[type[CrispError], bool]] = {
        "program": (RuntimeFailed, True),
        "other": (RuntimeFailed, False),
        "absent": (Absent, False),
        "state": (WrongState, False),
    }
    failure = commandline.failure(RUNC, "c" * 64, sample["verb"], sample["words"], status=1)
    assert (type(failure), getattr(failure, "program_missing", False)) == kinds[sample["means"]]
    assert failure.message.startswith(
        f"handler h: runc {sample['verb']} of container {'c' * 64} (status 1): "
    )
    assert failure.message.endswith(sample["words"])
