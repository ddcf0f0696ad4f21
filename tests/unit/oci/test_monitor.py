"""conmon's command line and answers, as values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from oci.monitor import (
    Monitor,
    SyncReply,
    attach_path,
    leftovers,
    monitor_argv,
    monitor_environment,
    parse_exit_code,
    parse_pid,
    parse_sync,
    resize_message,
)

ID = "ab" * 32
MONITOR = Monitor(
    program=Path("/usr/bin/conmon"),
    id=ID,
    bundle=Path("/var/lib/crisp/containers/x"),
    runtime=Path("/usr/sbin/runc"),
    runtime_arguments=("--root=/run/crisp/handlers/runc", "--log=/run/l"),
    runtime_options=("--no-pivot",),
    container_pid_file=Path("/b/pidfile"),
    monitor_pid_file=Path("/b/conmon-pidfile"),
    first_directory=Path("/run/crisp/ends/1"),
    last_directory=Path("/b/exit"),
    socket_directory=Path("/run/crisp/attach"),
    log_path=Path("/var/log/pods/p/c/0.log"),
    tty=False,
    stdin=False,
    stdin_once=False,
)
ARGV = [
    "/usr/bin/conmon",
    "--bundle", "/var/lib/crisp/containers/x",
    "--cid", ID,
    "--cuuid", "ab" * 8,
    "--name", ID,
    "--exit-dir", "/b/exit",
    "--persist-dir", "/run/crisp/ends/1",
    "--socket-dir-path", "/run/crisp/attach",
    "--container-pidfile", "/b/pidfile",
    "--conmon-pidfile", "/b/conmon-pidfile",
    "--log-level", "error",
    "--log-path", "k8s-file:/var/log/pods/p/c/0.log",
    "--no-sync-log",
    "--runtime", "/usr/sbin/runc",
    "--runtime-arg", "--root=/run/crisp/handlers/runc",
    "--runtime-arg", "--log=/run/l",
    "--runtime-opt", "--no-pivot",
]  # fmt: skip


def test_the_whole_command_line() -> None:
    assert monitor_argv(MONITOR) == ARGV


@pytest.mark.parametrize(
    ("changed", "added"),
    [
        ({"tty": True}, ["--terminal"]),
        ({"stdin": True}, ["--stdin", "--leave-stdin-open"]),
        ({"stdin": True, "stdin_once": True}, ["--stdin"]),
        ({"stdin_once": True}, []),
        ({"tty": True, "stdin": True}, ["--terminal", "--stdin", "--leave-stdin-open"]),
        ({"systemd_cgroup": True}, ["--systemd-cgroup"]),
    ],
)
def test_terminal_and_stdin_are_told(changed: dict[str, bool], added: list[str]) -> None:
    assert monitor_argv(replace(MONITOR, **changed)) == ARGV + added  # type: ignore[arg-type]


def test_without_a_log_path_the_output_is_dropped() -> None:
    argv = monitor_argv(replace(MONITOR, log_path=None))
    assert argv[argv.index("--log-path") + 1] == "null"


def test_the_pipes_are_named_by_their_numbers() -> None:
    assert monitor_environment(sync=7, start=9) == {"_OCI_SYNCPIPE": "7", "_OCI_STARTPIPE": "9"}


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (b'{"pid": 4711}\n', SyncReply(pid=4711)),
        (b'{"pid": -1, "message": "no \\"x\\""}\n', SyncReply(pid=-1, message='no "x"')),
        (b'{"pid": -1, "message": "raw \xff\xfe"}\n', SyncReply(pid=-1, message="raw ��")),
        (b'{"pid": -1, "message": "a\tb"}\n', SyncReply(pid=-1, message="a\tb")),
        (b'{"pid": 3}\n{"pid": 4}\n', SyncReply(pid=3)),
    ],
)
def test_an_answer_is_read_whole_and_byte_by_byte(data: bytes, reply: SyncReply) -> None:
    assert parse_sync(data) == reply
    end = data.index(b"\n")
    assert [parse_sync(data[:n]) for n in range(end + 1)] == [None] * (end + 1)


@pytest.mark.parametrize("data", [b"\n", b"[]\n", b"{}\n", b'{"pid": "x"}\n', b'{"pid": true}\n', b"\xff\n"])
def test_what_is_no_answer_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"no pid in it|not a JSON object"):
        parse_sync(data)


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"0", 0), (b"137", 137), (b"255\n", 255), (b"-1", None), (b"256", None), (b"", None), (b"\xff", None)],
)
def test_exit_files(data: bytes, code: int | None) -> None:
    assert parse_exit_code(data) == code


@pytest.mark.parametrize(
    ("data", "pid"), [(b"12", 12), (b"12\n", 12), (b"", None), (b"0", None), (b"x", None)]
)
def test_pid_files(data: bytes, pid: int | None) -> None:
    assert parse_pid(data) == pid


def test_attach_paths_fit_into_a_socket_address() -> None:
    assert attach_path(Path("/run/crisp/attach"), ID) == Path(f"/run/crisp/attach/{'ab' * 8}/attach")
    longest = "/" + "d" * 82
    assert len(str(attach_path(Path(longest), ID))) == 107
    with pytest.raises(ValueError, match="107 bytes"):
        attach_path(Path(longest + "d"), ID)


def test_terminal_sizes_are_brought_into_range() -> None:
    assert [resize_message(*size) for size in ((24, 80), (0, -5), (4000, 1000))] == [
        b"1 24 80\n",
        b"1 1 1\n",
        b"1 1000 1000\n",
    ]


def test_what_conmon_leaves_in_a_bundle() -> None:
    assert list(leftovers(Path("/b"))) == [Path("/b") / name for name in ("attach", "ctl", "winsz", "oom")]
