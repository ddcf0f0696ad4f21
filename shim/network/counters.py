"""Counters of pods' interfaces, read inside their network namespaces by one thread for all of them.

No process is started and nothing is kept open: the thread enters one namespace after the other and ends.
"""

from __future__ import annotations

from collections.abc import Sequence

from oci import netdev
from oci.netdev import InterfaceCounters
from shim.facts.reading import text
from shim.kernel import namespace


async def read(paths: Sequence[str]) -> list[tuple[InterfaceCounters, ...] | None]:
    """The interfaces but loopback in each pinned namespace; None for one that is gone."""
    if not paths:
        return []
    return await namespace.aside(lambda: [_read(path) for path in paths], name="crisp-counters")


def _read(path: str) -> tuple[InterfaceCounters, ...] | None:
    try:
        namespace.enter(path, namespace.Kind.NETWORK)
    except OSError:
        return None  # stopped while we looked
    # Not /proc/net: that is the process's namespace, not this thread's.
    content = text("/proc/thread-self/net/dev")
    return None if content is None else netdev.interfaces(content)
