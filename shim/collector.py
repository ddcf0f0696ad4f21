"""Who reads usage, and when: one pass over the kernel's files serves all callers of a period.

It remembers the last samples, for rates and for callers that come right after one another. What the numbers
mean is `shim/stats.py`'s. Nothing is read while nobody asks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from oci.cgroup import pod_path
from oci.facts import CgroupDriver
from oci.metrics import Reading
from oci.netdev import InterfaceCounters
from oci.workload import ContainerId, PodId
from shim import metrics, stats
from shim.network import counters
from shim.node import Node
from shim.records import ContainerRecord, ContainerState, PodRecord
from shim.stats import ContainerUsage, CpuUse, FilesystemUse, MemoryUse, NetworkUse, PodUsage, ProcessUse
from shim.threads import in_thread

PERIOD = 1.0
"""Seconds for which a sample is the answer to all callers."""

LAYER_SHARE = 20
"""A writable layer is measured again once this many times the duration of the last measurement passed."""

DEFAULT_INTERFACE = "eth0"
"""What the first network of a pod is attached as (`shim/network/`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodMetrics:
    """A READY pod: its own network (None with the host's), and its running containers."""

    id: PodId
    network: NetworkUse | None
    containers: tuple[tuple[ContainerId, Reading], ...]


class Collector:
    """One instance a daemon. `clock` is monotonic, in seconds."""

    def __init__(self, node: Node, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._node = node
        self._clock = clock
        self._turn = asyncio.Lock()
        self._containers: dict[ContainerId, tuple[ContainerUsage, float]] = {}
        self._pods: dict[PodId, tuple[PodUsage, float]] = {}
        self._readings: dict[ContainerId, tuple[Reading, float]] = {}
        self._layers: dict[ContainerId, tuple[FilesystemUse | None, float, float]] = {}

    async def container(self, record: ContainerRecord) -> ContainerUsage:
        """One container; of one that does not run only its writable layer."""
        return (await self.containers([record]))[0]

    async def containers(self, records: Sequence[ContainerRecord]) -> list[ContainerUsage]:
        """All of them, in their order. Missing files make parts None, never an error."""
        async with self._turn:
            await self._read_containers(records)
            return [self._containers[record.id][0] for record in records]

    async def pods(self, records: Sequence[PodRecord]) -> list[PodUsage]:
        """READY pods in their order, with their running containers."""
        members = self._members(records)
        async with self._turn:
            await self._read_containers([member for one in members.values() for member in one])
            await self._read_pods(members, records)
            return [self._pod(record, members[record.id]) for record in records]

    async def metrics(self, records: Sequence[PodRecord]) -> list[PodMetrics]:
        """What metrics are made of, for READY pods in their order."""
        members = self._members(records)
        async with self._turn:
            everything = [member for one in members.values() for member in one]
            await self._read_containers(everything)
            await self._read_pods(members, records)
            now = self._clock()
            stale = [
                member
                for member in everything
                if (known := self._readings.get(member.id)) is None or now - known[1] >= PERIOD
            ]
            for id_, reading in await in_thread(self._read_metrics, stale):
                self._readings[id_] = reading, now
            return [
                PodMetrics(
                    id=record.id,
                    network=self._pods[record.id][0].network,
                    containers=tuple(
                        (member.id, self._readings[member.id][0]) for member in members[record.id]
                    ),
                )
                for record in records
            ]

    def _read_metrics(self, records: Sequence[ContainerRecord]) -> list[tuple[ContainerId, Reading]]:
        return [
            (record.id, metrics.read(record, self._node.host, self._containers[record.id][0].writable_layer))
            for record in records
        ]

    def _members(self, records: Sequence[PodRecord]) -> dict[PodId, list[ContainerRecord]]:
        return {
            record.id: [
                member
                for member in self._node.store.containers_of(record.id)
                if member.state is ContainerState.RUNNING
            ]
            for record in records
        }

    def _pod(self, record: PodRecord, members: Iterable[ContainerRecord]) -> PodUsage:
        containers = tuple(
            usage for usage in (self._containers[member.id][0] for member in members) if usage.cpu is not None
        )
        return replace(self._pods[record.id][0], containers=containers)

    async def _read_containers(self, records: Iterable[ContainerRecord]) -> None:
        self._forget()
        now = self._clock()
        stale = []
        for record in records:
            known = self._containers.get(record.id)
            running = record.state is ContainerState.RUNNING
            if known is None or now - known[1] >= PERIOD or running is not (known[0].cpu is not None):
                stale.append(record)
        if stale:
            read = await in_thread(self._measure, stale)
            for usage in read:
                before = self._containers.get(usage.id)
                cpu = with_rate(usage.cpu, before[0].cpu if before else None)
                self._containers[usage.id] = replace(usage, cpu=cpu), now

    def _measure(self, records: Sequence[ContainerRecord]) -> list[ContainerUsage]:
        return [
            replace(
                stats.read_container(record, self._node.host),
                writable_layer=self._layer(record.id, self._node.paths.container(record.id)),
            )
            for record in records
        ]

    def _layer(self, id_: ContainerId, directory: Path) -> FilesystemUse | None:
        known = self._layers.get(id_)
        began = self._clock()
        if known is not None and began - known[1] < known[2] * LAYER_SHARE:
            return known[0]
        use = stats.read_layer(directory / "upper", mountpoint=directory.parent)
        ended = self._clock()
        self._layers[id_] = use, ended, ended - began
        return use

    async def _read_pods(
        self, members: Mapping[PodId, Sequence[ContainerRecord]], records: Iterable[PodRecord]
    ) -> None:
        now = self._clock()
        stale = [
            record
            for record in records
            if (known := self._pods.get(record.id)) is None or now - known[1] >= PERIOD
        ]
        if not stale:
            return
        with_network = [record for record in stale if record.namespaces.network]
        read = await counters.read([record.namespaces.network for record in with_network])
        moment = time.time_ns()
        networks = {
            record.id: network_use(found, moment)
            for record, found in zip(with_network, read, strict=True)
            if found is not None
        }
        for usage in await in_thread(
            lambda: [self._measure_pod(record, members[record.id]) for record in stale]
        ):
            before = self._pods.get(usage.id)
            self._pods[usage.id] = (
                replace(
                    usage,
                    cpu=with_rate(usage.cpu, before[0].cpu if before else None),
                    network=networks.get(usage.id),
                ),
                now,
            )

    def _measure_pod(self, record: PodRecord, members: Sequence[ContainerRecord]) -> PodUsage:
        host = self._node.host
        if not record.spec.cgroup_parent:
            # Its containers lie beside those of other such pods: the sum of what runs is all there is.
            return summed(
                record.id,
                [
                    (self._containers[member.id][0], stats.read_processes(member.cgroup, host))
                    for member in members
                ],
            )
        path = pod_path(record.spec.cgroup_parent, systemd=host.cgroup.driver is CgroupDriver.SYSTEMD)
        return PodUsage(
            id=record.id,
            cpu=stats.read_cpu(path, host),
            memory=stats.read_memory(path, host),
            process=stats.read_processes(path, host),
            io=stats.read_io(path, host),
        )

    def _forget(self) -> None:
        """Drop what was removed. Cheap: the maps hold what was asked for."""
        store = self._node.store
        for id_ in [id_ for id_ in self._containers if id_ not in store.containers]:
            del self._containers[id_]
            self._layers.pop(id_, None)
            self._readings.pop(id_, None)
        for pod in [pod for pod in self._pods if pod not in store.pods]:
            del self._pods[pod]


def with_rate(now: CpuUse | None, before: CpuUse | None) -> CpuUse | None:
    """`now` with the rate since `before`; without one where there is nothing to compare with."""
    if now is None or before is None:
        return now
    total, earlier = now.usage_core_nano_seconds, before.usage_core_nano_seconds
    elapsed = now.timestamp - before.timestamp
    if total is None or earlier is None or total < earlier or elapsed <= 0:
        return now
    return replace(now, usage_nano_cores=(total - earlier) * 1_000_000_000 // elapsed)


def network_use(found: tuple[InterfaceCounters, ...], timestamp: int) -> NetworkUse:
    """The interfaces with the one that leads first."""
    default = next((one for one in found if one.name == DEFAULT_INTERFACE), None)
    return NetworkUse(
        timestamp=timestamp, default=default, others=tuple(one for one in found if one is not default)
    )


def summed(id_: PodId, members: Sequence[tuple[ContainerUsage, ProcessUse | None]]) -> PodUsage:
    """The usage of a pod that has no cgroup of its own: what its containers use together."""

    def total(values: Iterable[int | None]) -> int:
        return sum(value or 0 for value in values)

    cpus = [one.cpu for one, _ in members if one.cpu is not None]
    memories = [one.memory for one, _ in members if one.memory is not None]
    counts = [count for _, count in members if count is not None]
    now = time.time_ns()
    return PodUsage(
        id=id_,
        cpu=CpuUse(
            timestamp=max((one.timestamp for one in cpus), default=now),
            usage_core_nano_seconds=total(one.usage_core_nano_seconds for one in cpus),
        ),
        memory=MemoryUse(
            timestamp=max((one.timestamp for one in memories), default=now),
            working_set=total(one.working_set for one in memories),
            usage=total(one.usage for one in memories),
            rss=total(one.rss for one in memories),
            page_faults=total(one.page_faults for one in memories),
            major_page_faults=total(one.major_page_faults for one in memories),
        ),
        process=ProcessUse(timestamp=now, count=sum(one.count for one in counts)),
    )
