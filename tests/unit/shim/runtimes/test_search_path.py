from __future__ import annotations

from shim import process
from shim.runtimes.programs import search_path


def test_the_daemons_own_path_comes_first_and_the_sbin_directories_are_always_there() -> None:
    assert search_path({"PATH": "/opt/bin:/usr/bin"}) == (
        "/opt/bin:/usr/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/sbin:/bin"
    )
    assert search_path({}) == process.PATH


def test_directories_relative_to_where_the_daemon_was_started_are_not_searched() -> None:
    assert search_path({"PATH": "::.:bin:/usr/sbin"}) == (
        "/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/bin:/sbin:/bin"
    )
