"""Pods as the services see them: each verb by realm and id, in one place."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Any

from oci.errors import WrongState
from oci.workload import PodId, PodSpec, Resources
from shim.collector import Collector, PodMetrics
from shim.containers.exits import Exits
from shim.containers.stop import Stops
from shim.node import Node
from shim.pods import forward, run, stop, update
from shim.pods.lookup import all_pods, find_pod, get_pod
from shim.records import PodRecord, PodState
from shim.state.codec import encode
from shim.stats import PodUsage


class Pods:
    """The verbs of pods. Ids may be prefixes; stop and remove of what does not exist succeed."""

    def __init__(self, node: Node, exits: Exits, stops: Stops, collector: Collector) -> None:
        self._node = node
        self._collector = collector
        self._exits = exits
        self._stops = stops
        self._delivered: set[PodId] = set()  # whose READY record a caller has had, in this daemon's life

    async def run(self, spec: PodSpec, /, *, realm: str) -> PodRecord:
        """RunPodSandbox."""
        return await run.run(self._node, realm, spec, self._delivered)

    async def stop(self, realm: str, id_: str, /) -> None:
        """StopPodSandbox."""
        record = find_pod(self._node.store, realm, id_)
        if record is not None:
            await stop.stop(self._node, self._exits, self._stops, record.id)

    async def remove(self, realm: str, id_: str, /) -> None:
        """RemovePodSandbox."""
        record = find_pod(self._node.store, realm, id_)
        if record is not None:
            await stop.remove(self._node, self._exits, self._stops, record.id)
            self._delivered.discard(record.id)

    def get(self, realm: str, id_: str, /) -> PodRecord:
        """The record. Raises Absent."""
        return get_pod(self._node.store, realm, id_)

    def all(self, realm: str, /) -> Sequence[PodRecord]:
        """Every pod of the realm that was made and not yet removed."""
        return all_pods(self._node.store, realm)

    async def update(
        self, realm: str, id_: str, /, *, overhead: Resources | None, resources: Resources | None
    ) -> None:
        """UpdatePodSandboxResources. Raises Absent."""
        record = self.get(realm, id_)
        await update.update(self._node, record.id, overhead=overhead, resources=resources)

    async def stats(self, realm: str, id_: str, /) -> PodUsage:
        """PodSandboxStats. Raises Absent, WrongState unless the pod is READY."""
        record = self.get(realm, id_)
        if record.state is not PodState.READY:
            raise WrongState(f"pod sandbox {record.id} is {record.state.value}, it uses nothing")
        return (await self._collector.pods([record]))[0]

    async def all_stats(self, realm: str, ids: Sequence[str], /) -> Sequence[PodUsage]:
        """Those of `ids` that are READY; one that ends meanwhile is left out."""
        wanted = set(ids)
        ready = [pod for pod in self.all(realm) if pod.id in wanted and pod.state is PodState.READY]
        usages = await self._collector.pods(ready)
        return [usage for usage in usages if usage.id in self._node.store.pods]

    async def metrics(self, realm: str, /) -> Sequence[PodMetrics]:
        """ListPodSandboxMetrics: every READY pod."""
        ready = [pod for pod in self.all(realm) if pod.state is PodState.READY]
        return await self._collector.metrics(ready)

    def check_forward(self, realm: str, id_: str, /) -> PodId:
        """PortForward: whether it can begin, and the whole id. Raises Absent, WrongState."""
        return forward.ready(self.get(realm, id_)).id

    async def dial(self, realm: str, id_: str, port: int, /) -> socket.socket:
        """A connection to a port of the pod's loopback. Raises Absent, WrongState, Deadline."""
        return await forward.dial(self._node, self.get(realm, id_), port)

    async def describe(self, pod: PodRecord, /) -> Mapping[str, Any]:
        """The verbose status: first process, namespaces, network, and the request."""
        return {
            "pid": pod.init.pid if pod.init is not None else 0,
            "handler": pod.handler,
            "handlerReason": pod.handler_reason,
            "namespaces": encode(pod.namespaces),
            "network": encode(pod.network) if pod.network is not None else None,
            "networkOwed": pod.network_owed,
            "fault": pod.fault,
            "config": encode(pod.spec),
            "overhead": encode(pod.overhead or pod.spec.overhead),
            "resources": encode(pod.resources or pod.spec.resources),
        }
