"""SELinux labels: the pair of categories that tells pods apart, and what may be relabelled. Pure.

A pod's level is `s0:cA,cB` with a pair of the 1024 categories of its own (MCS): processes of one pod cannot
reach files of another, whatever their owner.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection

from oci.errors import BadInput, Full

CATEGORIES = 1024
SHARED = "s0"
"""The level of files that every pod may reach: a volume that the request wants relabelled."""

_FILES = "system_u:object_r:container_file_t"

_NOT_RELABELLED = frozenset(
    (
        "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/media", "/mnt", "/opt", "/proc",
        "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var", "/var/lib", "/var/log", "/var/tmp",
    )
)  # fmt: skip


def file_label(level: str) -> str:
    """The label of files that processes of that level may use."""
    return f"{_FILES}:{level}"


def new_level(taken: Collection[str], choose: Callable[[int], int]) -> str:
    """A level that is not among `taken`; `choose(n)` gives a number under n.

    Raises Full when every pair is taken.
    """
    pairs = CATEGORIES * (CATEGORIES - 1) // 2
    for _ in range(64):
        first, second = choose(CATEGORIES), choose(CATEGORIES)
        level = _level(first, second)
        if first != second and level not in taken:
            return level
    start = choose(pairs)
    ordered = itertools.combinations(range(CATEGORIES), 2)
    for first, second in itertools.chain(itertools.islice(ordered, start, None), _first_pairs(start)):
        if (level := _level(first, second)) not in taken:
            return level
    raise Full(f"SELinux: all {pairs} pairs of categories are taken by pods")


def _first_pairs(count: int) -> itertools.islice[tuple[int, int]]:
    return itertools.islice(itertools.combinations(range(CATEGORIES), 2), count)


def _level(first: int, second: int) -> str:
    low, high = sorted((first, second))
    return f"s0:c{low},c{high}"


def check_relabel(field: str, path: str) -> None:
    """Refuse to give a directory of the node's own to containers. Raises BadInput."""
    if path in _NOT_RELABELLED:
        raise BadInput(f"{field}: {path} is the node's own, its label must not change")
