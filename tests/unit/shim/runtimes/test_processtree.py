"""Who belongs to an exec, decided on tables of processes."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.runtimes.processtree import Entry, began, members, parse_entry, read_entry, read_table


def _table(*rows: tuple[int, int, int]) -> dict[int, Entry]:
    return {
        pid: Entry(pid=pid, state="S", parent=parent, session=session, start_time=pid)
        for pid, parent, session in rows
    }


TABLE = _table(
    (1, 0, 1),
    (10, 1, 10),  # the container's first process
    (20, 1, 20),  # runc exec
    (21, 20, 21),  # the exec's process
    (22, 21, 21),
    (23, 22, 23),  # its child in a session of its own
    (24, 10, 21),  # an orphan of the session
    (25, 24, 25),
    (26, 10, 26),  # a daemon
)


@pytest.mark.parametrize(
    ("roots", "session", "found"),
    [
        ((), 0, set()),
        ((21,), 0, {21, 22, 23}),
        ((20,), 21, {20, 21, 22, 23, 24, 25}),
        ((), 21, {21, 22, 23, 24, 25}),
        ((999,), 0, set()),
        ((10,), 0, {10, 24, 25, 26}),
    ],
)
def test_members_are_descendants_and_the_session(
    roots: tuple[int, ...], session: int, found: set[int]
) -> None:
    assert members(TABLE, roots, session) == found


@given(st.dictionaries(st.integers(1, 30), st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=30))
def test_a_loop_in_the_table_has_an_end(rows: dict[int, tuple[int, int]]) -> None:
    table = _table(*((pid, parent, session) for pid, (parent, session) in rows.items()))
    for pid in table:
        assert pid in members(table, (pid,), 0)


@given(st.binary(max_size=15).filter(lambda name: b"\n" not in name))
def test_a_command_name_may_hold_anything(name: bytes) -> None:
    line = b"42 (" + name + b") S 7 42 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2\n"
    assert parse_entry(line) == Entry(pid=42, state="S", parent=7, session=9, start_time=98765)


def test_this_process_is_in_the_table() -> None:
    me = read_entry(os.getpid())
    assert me is not None
    assert (me.parent, me.session) == (os.getppid(), os.getsid(0))
    assert read_table()[os.getpid()].reference == me.reference
    assert began(me) < began(me) + 1
    assert read_entry(2**22 + 1) is None
