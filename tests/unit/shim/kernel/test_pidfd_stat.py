"""Reading /proc/PID/stat, whatever the process calls itself."""

from __future__ import annotations

import pytest

from shim.kernel.pidfd import is_dead, parse_stat

REST = b" 1 77 77 0 -1 4194560 151 0 0 0 1 2 3 4 20 0 1 0 4711 2322432 197 18446744073709551615 1 1"


@pytest.mark.parametrize(
    "name", [b"cat", b"a b", b"x) Z 1 2 (y", b")", b"((", b"tmux: server", b"\xff\xfe", b"new\nline"]
)
def test_the_name_of_a_process_cannot_shift_its_fields(name: bytes) -> None:
    assert parse_stat(b"77 (" + name + b") S" + REST + b"\n") == ("S", 4711)


@pytest.mark.parametrize("line", [b"", b"77 (cat", b"77 (cat) S 1 2 3"])
def test_what_is_no_stat_line_is_an_error(line: bytes) -> None:
    with pytest.raises(ValueError, match="not a /proc/PID/stat line"):
        parse_stat(line)


def test_zombies_and_dead_processes_count_as_dead_and_no_others() -> None:
    assert [letter for letter in "RSDTtXxZPIKW" if is_dead(letter)] == ["X", "x", "Z"]
