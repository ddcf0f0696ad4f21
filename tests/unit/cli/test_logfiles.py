"""Log files: found by name, read from where it is wanted, followed through rotation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli import logfiles, names
from oci.errors import Absent, Internal
from oci.logline import Output, nanoseconds


def stamp(second: int) -> bytes:
    return f"2026-01-31T12:00:{second:02d}.000000000Z".encode()


def entry(second: int, text: str, *, tag: str = "F", stream: str = "stdout") -> bytes:
    return stamp(second) + f" {stream} {tag} {text}\n".encode()


def written(path: Path, *lines: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(lines))
    return path


def texts(outputs: Iterator[Output]) -> list[bytes]:
    return [output.content for output in outputs]


def steps(*actions: Callable[[], object]) -> logfiles.KeepOn:
    """At each end of the file one action; after the last of them nothing more comes."""
    left = list(actions)

    def keep_on() -> bool:
        if not left:
            return False
        left.pop(0)()
        return True

    return keep_on


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_a_whole_log_is_read_with_streams_and_times(tmp_path: Path) -> None:
    log = written(tmp_path / "0.log", entry(1, "out"), entry(2, "err", stream="stderr"))
    assert list(logfiles.read(log)) == [
        Output(time=stamp(1), stream="stdout", content=b"out\n"),
        Output(time=stamp(2), stream="stderr", content=b"err\n"),
    ]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, []),
        (1, [b"five\n"]),
        (2, [b"three four\n", b"five\n"]),
        (3, [b"two\n", b"three four\n", b"five\n"]),
        (4, [b"one\n", b"two\n", b"three four\n", b"five\n"]),
        (99, [b"one\n", b"two\n", b"three four\n", b"five\n"]),
    ],
)
def test_the_last_lines_are_counted_as_the_container_wrote_them(
    tmp_path: Path, count: int, expected: list[bytes]
) -> None:
    log = written(
        tmp_path / "0.log",
        entry(1, "one"),
        entry(2, "two"),
        entry(3, "three ", tag="P"),
        entry(4, "four"),
        entry(5, "five"),
    )
    assert texts(logfiles.read(log, tail=count)) == expected


def test_the_end_of_a_long_log_is_found_over_many_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = written(tmp_path / "0.log", *(entry(n % 60, f"line {n}") for n in range(500)))
    for block in (1, 7, 64, 1000, 10**6):
        monkeypatch.setattr(logfiles, "_BLOCK", block)
        assert texts(logfiles.read(log, tail=40)) == [f"line {n}\n".encode() for n in range(460, 500)]


def test_earlier_lines_than_wanted_are_left_out(tmp_path: Path) -> None:
    log = written(tmp_path / "0.log", entry(1, "one"), entry(2, "two"), entry(3, "three"))
    assert texts(logfiles.read(log, since=nanoseconds(stamp(2)))) == [b"two\n", b"three\n"]
    assert texts(logfiles.read(log, since=nanoseconds(stamp(9)))) == []


def test_a_torn_line_is_shown_as_it_is(tmp_path: Path) -> None:
    log = written(tmp_path / "0.log", entry(1, "one"), b"\0\0\0torn\n", entry(2, "two"), stamp(3) + b" std")
    assert texts(logfiles.read(log)) == [b"one\n", b"\0\0\0torn\n", b"two\n", stamp(3) + b" std\n"]


def test_what_is_appended_is_followed_and_a_prompt_is_not_held_back(tmp_path: Path) -> None:
    log = written(tmp_path / "0.log", entry(1, "one"))
    later = entry(3, "in two writes")
    keep_on = steps(
        lambda: append(log, entry(2, "prompt> ", tag="P")),
        lambda: append(log, later[:20]),
        lambda: append(log, later[20:]),
    )
    assert texts(logfiles.read(log, keep_on=keep_on)) == [b"one\n", b"prompt> ", b"in two writes\n"]


def test_rotation_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    log = written(tmp_path / "0.log", entry(1, "one"))
    old = tmp_path / "0.log.20260131"

    def rename() -> None:
        append(log, entry(2, "two"))
        log.rename(old)

    def reopen() -> None:
        append(old, entry(3, "three"))
        written(log, entry(4, "four"))

    assert texts(logfiles.read(log, keep_on=steps(rename, reopen))) == [
        b"one\n",
        b"two\n",
        b"three\n",
        b"four\n",
    ]


def test_a_file_that_is_truncated_in_place_is_read_from_its_beginning(tmp_path: Path) -> None:
    log = written(tmp_path / "0.log", entry(1, "a longer first line"))
    keep_on = steps(lambda: written(log, entry(2, "two")), lambda: None)
    assert texts(logfiles.read(log, keep_on=keep_on)) == [b"a longer first line\n", b"two\n"]


def test_what_came_just_before_the_end_is_still_read(tmp_path: Path) -> None:
    log = written(tmp_path / "0.log", entry(1, "one"))

    def ended() -> bool:
        append(log, entry(2, "last words"))
        return False

    read = logfiles.read(log, keep_on=ended)
    assert texts(read) == [b"one\n", b"last words\n"]


def test_a_log_that_is_gone_or_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(Absent, match="does not exist"):
        list(logfiles.read(tmp_path / "0.log"))
    os.mkfifo(tmp_path / "fifo")
    for odd in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(Internal, match=f"log {odd}"):
            list(logfiles.read(odd))


def test_a_line_without_end_is_not_read_for_ever(tmp_path: Path) -> None:
    log = written(tmp_path / "0.log", b"x" * (5 * 2**20))
    with pytest.raises(Internal, match="this is no log"):
        list(logfiles.read(log))


def test_the_attempt_before_is_the_highest_below(tmp_path: Path) -> None:
    for name in ("0.log", "1.log", "3.log", "1.log.20260131-120000", "x.log"):
        written(tmp_path / name)
    assert logfiles.previous(tmp_path / "3.log") == tmp_path / "1.log"
    with pytest.raises(Absent, match="no log of an earlier attempt"):
        logfiles.previous(tmp_path / "0.log")


def test_logs_are_found_by_name_without_a_daemon(tmp_path: Path) -> None:
    for name in (
        "kubelet/default_web_uid-1/nginx/0.log",
        "kubelet/default_web_uid-1/nginx/2.log",
        "kubelet/default_web_uid-1/sidecar/0.log",
        "kubelet/kube-system_web-x_uid-2/nginx/0.log",
        "kubelet/no-underscores/x/0.log",
        "run/run_mine_uid-3/busybox/0.log",
    ):
        written(tmp_path / name)
    kept = logfiles.offline(
        {"kubelet": tmp_path / "kubelet", "run": tmp_path / "run", "none": tmp_path / "none"}
    )

    def found(name: str) -> str:
        container = names.find_container(name, kept).container
        assert container is not None
        return str(Path(container.log_path).relative_to(tmp_path))

    assert found("default/web/nginx") == "kubelet/default_web_uid-1/nginx/2.log"
    assert found("web/sidecar") == "kubelet/default_web_uid-1/sidecar/0.log"
    assert found("web-x") == "kubelet/kube-system_web-x_uid-2/nginx/0.log"
    assert found("run/mine") == "run/run_mine_uid-3/busybox/0.log"
    with pytest.raises(Absent):
        found("other")


def test_of_two_pods_of_one_name_the_later_is_meant(tmp_path: Path) -> None:
    for number, uid in enumerate(("old", "new")):
        written(tmp_path / f"default_web_{uid}/nginx/0.log")
        os.utime(tmp_path / f"default_web_{uid}", (number, number))
    found = names.find_container("web", logfiles.offline({"kubelet": tmp_path}))
    assert found.container is not None
    assert found.container.log_path == str(tmp_path / "default_web_new/nginx/0.log")
