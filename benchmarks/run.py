"""What every measure of a run needs: the sides that are up, where their pods belong, how much is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TypeVar

from api.client import Client
from benchmarks import work
from benchmarks.images import Served
from benchmarks.sides import Crispd, Side
from benchmarks.work import Pod

Samples = dict[str, list[float]]
_Each = TypeVar("_Each")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How much is measured. The defaults take some minutes; `SMOKE` seconds."""

    cycles: int = 40
    execs: int = 5  # in each cycle
    bursts: int = 3
    burst: int = 40  # pods, eight at a time
    flat: int = 500
    pulls: int = 5
    large: int = 3  # pulls, removals and first starts of the larger images
    readers: int = 10  # containers of one image that read it all
    cold: int = 1  # 0: what is said to be cold is not, as the machine's page cache stays
    settling: int = 12  # seconds: what a side does for its page cache after a start has been done by then
    listed: int = 200
    loads: int = 4  # pulls with four starts each, while lists are asked for
    watched: int = 40  # pods whose usage is read
    readings: int = 20
    node: int = 250  # pods that are polled
    seconds: int = 60  # for which they are
    ends: int = 100  # containers whose end is waited for
    streams: int = 60  # execs, attaches and port-forwards
    volume: int = 1024  # MiB through one stream
    floods: int = 3  # times
    handled: int = 20  # pods of each handler, one at a time
    packed: int = 8  # pods of each handler at the same time
    kubelets: int = 3  # lives of a kubelet on each side, without and with Evented PLEG
    singles: int = 5  # static pods in each of them, one at a time
    static: int = 30  # and at once
    idle: int = 60  # seconds for which these are left alone in the last life


SMOKE = Counts(
    cycles=2, execs=1, bursts=1, burst=4, flat=6, pulls=1, large=1, readers=1, cold=0, settling=1, listed=4,
    loads=1, watched=2, readings=1, node=3, seconds=2, ends=3, streams=2, volume=8, floods=1,
    handled=1, packed=1, kubelets=1, singles=1, static=2, idle=1,
)  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Run:
    """One run of the benchmarks."""

    sides: Sequence[Side]
    clients: dict[str, Client]
    top: str
    logs: Path
    counts: Counts
    say: Callable[[str], None]
    served: Served
    directory: Path  # of the run, on disk

    @property
    def crispd(self) -> Crispd:
        return next(side for side in self.sides if isinstance(side, Crispd))

    def turns(self, count: int) -> list[Sequence[Side]]:
        """The sides for each round, another first each time."""
        sides = list(self.sides)
        return [sides[n % len(sides) :] + sides[: n % len(sides)] for n in range(count)]

    def pods(self, count: int, handler: str = "") -> list[Pod]:
        return [work.pod(self.top, self.logs, handler) for _ in range(count)]


def eight(each: Callable[[_Each], object], many: Sequence[_Each]) -> float:
    """Seconds for all of them, eight at a time."""
    began = perf_counter()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(each, many))
    return perf_counter() - began
