"""An empty cgroup for each pod with a network of its own, which kubelet's cAdvisor takes for the pod's
sandbox.

cAdvisor reads a pod's network through the process of a container that it finds by a cgroup; Crisp's pods
have no process of their own. So one of the pod's containers lends its pid, and the cgroup appears with the
first and again whenever that process is gone and another takes its place. Knows cgroups and records,
nothing of cAdvisor's wire.
"""

from __future__ import annotations

import asyncio
import logging

from oci.errors import CrispError
from oci.workload import NamespaceMode, PodId
from shim import process
from shim.cgroups import Cgroups
from shim.node import Node
from shim.placement import placed
from shim.records import ContainerRecord, ContainerState, PodRecord, PodState, ProcessRef
from shim.state.store import Change
from shim.threads import in_thread

log = logging.getLogger(__name__)


class PodLeaves:
    """One background task; `start` it after recovery, `close` it at shutdown. Nothing is polled."""

    def __init__(self, node: Node, cgroups: Cgroups) -> None:
        self._node = node
        self._cgroups = cgroups
        self._lent: dict[PodId, ProcessRef] = {}
        self._paths: dict[PodId, str] = {}
        self._changed_pods: asyncio.Queue[PodId] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._node.store.subscribe(self._changed)
        for pod in self._node.store.pods.values():
            if _wants(pod):
                self._paths[pod.id] = self._path(pod)  # an earlier life may have made it
            self._changed_pods.put_nowait(pod.id)
        self._task = asyncio.create_task(self._run(), name="pod leaves")

    async def close(self) -> None:
        """End the task; the cgroups stay, like their pods."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def pid(self, id_: PodId) -> int:
        """A living process in the pod's network namespace, 0 when there is none."""
        pod = self._node.store.pods.get(id_)
        if pod is None:
            return 0
        found = pod.init or self._lent.get(id_)
        return found.pid if found is not None and process.alive(found) else 0

    def _changed(self, change: Change) -> None:
        record = change.after or change.before
        if isinstance(record, PodRecord):
            self._changed_pods.put_nowait(record.id)
        elif isinstance(record, ContainerRecord) and record.state in (
            ContainerState.RUNNING,
            ContainerState.EXITED,
        ):
            self._changed_pods.put_nowait(record.pod_id)

    async def _run(self) -> None:
        while True:
            id_ = await self._changed_pods.get()
            try:
                await self._settle(id_)
            except (CrispError, OSError) as error:
                log.warning("the pod's cgroup for cAdvisor", extra={"pod": id_, "error": str(error)})

    async def _settle(self, id_: PodId) -> None:
        pod = self._node.store.pods.get(id_)
        if pod is None or pod.state is not PodState.READY:
            await self._withdraw(id_)
        elif _wants(pod):
            lent = self._lent.get(id_)
            if lent is None or not process.alive(lent):
                await self._withdraw(id_)
                if (found := self._runs_in(id_)) is not None:
                    self._lent[id_] = found  # before the cgroup is seen: whoever sees it asks at once
                    path = self._paths[id_] = self._path(pod)
                    await in_thread(self._cgroups.make, path)

    def _path(self, pod: PodRecord) -> str:
        return placed(self._node, pod.spec.cgroup_parent, pod.id).kernel_path

    async def _withdraw(self, id_: PodId) -> None:
        self._lent.pop(id_, None)
        if path := self._paths.pop(id_, ""):
            await in_thread(self._cgroups.remove, path)

    def _runs_in(self, id_: PodId) -> ProcessRef | None:
        for record in self._node.store.containers_of(id_):
            runs = record.process if record.state is ContainerState.RUNNING else None
            if runs is not None and process.alive(runs):
                return runs
        return None


def _wants(pod: PodRecord) -> bool:
    """A pod of kubelet's with a network of its own and no first process, which would have such a cgroup
    itself.
    """
    own = pod.spec.security.namespaces.network is NamespaceMode.POD
    return bool(pod.spec.cgroup_parent) and own and pod.init is None
