"""Containers as the services see them: each verb by realm and id, in one place.

Every method is a lookup and a call of the verb's own module.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from oci.errors import Internal
from oci.workload import ContainerId, ContainerSpec, PodSpec, Resources
from shim.collector import Collector
from shim.containers import checkpoint, create, exec, remove, start, stop, streams, update
from shim.containers.bundle import Processes, read_config
from shim.containers.exits import Exits
from shim.containers.lookup import all_containers, find_container, get_container
from shim.containers.stop import Stops
from shim.containers.target import target
from shim.node import Node
from shim.pods.lookup import get_pod
from shim.records import ContainerRecord, ContainerState
from shim.runtimes.driver import ExecResult, Output, Session, Size
from shim.state.codec import encode
from shim.stats import ContainerUsage


class Containers:
    """The verbs of containers. Ids may be prefixes; stop and remove of what does not exist succeed."""

    def __init__(self, node: Node, exits: Exits, stops: Stops, collector: Collector) -> None:
        self._node = node
        self._collector = collector
        self._exits = exits
        self._stops = stops
        # Which results a caller has had, in this daemon's life; see `create` and `start`.
        self._created: set[ContainerId] = set()
        self._started: set[ContainerId] = set()
        self._processes = Processes()

    async def create(
        self, realm: str, pod_id: str, spec: ContainerSpec, pod_spec: PodSpec, /
    ) -> ContainerRecord:
        """CreateContainer. `pod_spec` came with the request; the pod's own record is what counts."""
        pod = get_pod(self._node.store, realm, pod_id)
        return await create.create(self._node, pod, spec, self._created)

    async def start(self, realm: str, id_: str, /) -> None:
        """StartContainer."""
        await start.start(self._node, self.get(realm, id_).id, self._started)

    async def stop(self, realm: str, id_: str, grace: float, /) -> None:
        """StopContainer; `grace` in seconds."""
        record = find_container(self._node.store, realm, id_)
        if record is not None:
            await stop.stop(self._node, self._exits, self._stops, record.id, grace=grace)

    async def remove(self, realm: str, id_: str, /) -> None:
        """RemoveContainer."""
        record = find_container(self._node.store, realm, id_)
        if record is not None:
            await remove.remove(self._node, self._exits, self._stops, record.id)
            self._created.discard(record.id)
            self._started.discard(record.id)
            self._processes.forget(record.id)

    def get(self, realm: str, id_: str, /) -> ContainerRecord:
        """The record. Raises Absent."""
        return get_container(self._node.store, realm, id_)

    def all(self, realm: str, /) -> Sequence[ContainerRecord]:
        """Every container of the realm that was made and not yet removed."""
        return all_containers(self._node.store, realm)

    async def update(self, realm: str, id_: str, change: Resources, /) -> None:
        """UpdateContainerResources; unset members of `change` keep what is."""
        await update.update(self._node, self.get(realm, id_).id, change)

    async def checkpoint(self, realm: str, id_: str, location: Path, limit: float | None, /) -> None:
        """CheckpointContainer; `limit` in seconds."""
        await checkpoint.checkpoint(self._node, self.get(realm, id_).id, location, limit=limit)

    async def exec_sync(
        self, realm: str, id_: str, cmd: tuple[str, ...], limit: float | None, /
    ) -> ExecResult:
        """ExecSync; `limit` in seconds."""
        return await exec.exec_sync(self._node, self._processes, self.get(realm, id_), cmd, limit=limit)

    def check_exec(self, realm: str, id_: str, /) -> ContainerId:
        """Exec: whether it can begin, and the whole id. Raises Absent, WrongState."""
        record = self.get(realm, id_)
        streams.check_exec(record)
        return record.id

    def check_attach(self, realm: str, id_: str, /, *, terminal: bool) -> ContainerId:
        """Attach: whether it can begin, and the whole id. Raises Absent, WrongState, BadInput."""
        record = self.get(realm, id_)
        streams.check_attach(record, terminal=terminal)
        return record.id

    async def exec_stream(
        self,
        realm: str,
        id_: str,
        cmd: tuple[str, ...],
        /,
        *,
        terminal: bool,
        stdin: bool,
        outputs: frozenset[Output],
        size: Size | None,
    ) -> Session:
        """Exec, when its client is there."""
        return await streams.exec_stream(
            self._node,
            self._processes,
            self.get(realm, id_),
            cmd,
            terminal=terminal,
            stdin=stdin,
            outputs=outputs,
            size=size,
        )

    async def attach(self, realm: str, id_: str, /, *, size: Size | None) -> Session:
        """Attach, when its client is there."""
        return await streams.attach(self._node, self.get(realm, id_), size=size)

    async def reopen_log(self, realm: str, id_: str, /) -> None:
        """ReopenContainerLog."""
        record = self.get(realm, id_)
        exec.require_running(record)
        await self._node.driver_of(record).reopen_log(target(self._node.paths, record))

    async def stats(self, realm: str, id_: str, /) -> ContainerUsage:
        """ContainerStats: of one that does not run only what outlives it."""
        return await self._collector.container(self.get(realm, id_))

    async def all_stats(self, realm: str, ids: Sequence[str], /) -> Sequence[ContainerUsage]:
        """Those of `ids` that run; one that ends meanwhile is left out."""
        wanted = set(ids)
        running = [
            record
            for record in self.all(realm)
            if record.id in wanted and record.state is ContainerState.RUNNING
        ]
        usages = await self._collector.containers(running)
        return [u for u in usages if u.cpu is not None and u.id in self._node.store.containers]

    async def describe(self, container: ContainerRecord, /) -> Mapping[str, Any]:
        """The verbose status: process, record and OCI configuration."""
        bundle = self._node.paths.container(container.id)
        spec: Any = None
        with suppress(Internal):
            spec = await asyncio.to_thread(read_config, bundle, stage="status")
        return {
            "sandboxID": container.pod_id,
            "pid": container.process.pid if container.process is not None else 0,
            "handler": container.handler,
            "bundle": str(bundle),
            "cgroup": container.cgroup,
            "fault": container.fault,
            "config": encode(container.spec),
            "runtimeSpec": spec,
        }
