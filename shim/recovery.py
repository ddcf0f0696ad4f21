"""Start-up: what the records say is compared with the machine, and the two are made one.

`plan` decides, without looking at anything; `recover` looks, plans and acts. Containers go on running
meanwhile. Nothing that a record does not know is left of Crisp's own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from oci.errors import CrispError
from oci.workload import ContainerId, PodId
from shim.containers.exits import record_exit
from shim.containers.lookup import has_process
from shim.containers.remove import release as release_container
from shim.containers.rootfs import provide
from shim.containers.start import reset
from shim.containers.target import target
from shim.lifecycle.table import ContainerEvent, PodEvent, next_container_state, next_pod_state
from shim.node import Node
from shim.pods import files, init
from shim.pods.stop import release as release_pod
from shim.records import ContainerRecord, ContainerState, PodRecord, PodState
from shim.runtimes.driver import Exit, ExitListener, Observed, Status
from shim.strays import remove_strays

log = logging.getLogger(__name__)


class Step(Enum):
    """What recovery does with one object."""

    KEEP = "keep"
    RUN = "runs"  # the record becomes, or stays, RUNNING
    END = "ended"  # EXITED with what is known of its end
    RESET = "not started"  # the start left nothing: CREATED again
    REMOVE = "remove"  # half made, or half removed
    DOWN = "not ready"  # a pod whose namespaces are gone
    STOP = "go on stopping or removing"
    REMOUNT = "mount again"  # a CREATED container whose root file system went with the last boot


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    id: str
    step: Step
    observed: Observed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PodView:
    """What the machine shows of a pod."""

    intact: bool  # every pinned namespace is there
    init_alive: bool  # True where the pod has no first process


def plan(
    pods: Sequence[PodRecord],
    containers: Sequence[ContainerRecord],
    pod_views: Mapping[PodId, PodView],
    observed: Mapping[ContainerId, Observed],
    mounted: Mapping[ContainerId, bool],
) -> list[Action]:
    """What to do with each object, containers before pods. Pure."""
    known = {p.id for p in pods}
    actions = [
        Action(
            id=c.id,
            # Without its pod, whose record was lost, nobody could ever stop it.
            step=_container_step(c, observed, mounted) if c.pod_id in known else Step.REMOVE,
            observed=observed.get(c.id),
        )
        for c in containers
    ]
    actions += [Action(id=p.id, step=_pod_step(p, pod_views)) for p in pods]
    return [action for action in actions if action.step is not Step.KEEP]


def _container_step(
    record: ContainerRecord, observed: Mapping[ContainerId, Observed], mounted: Mapping[ContainerId, bool]
) -> Step:
    match record.state:
        case ContainerState.CREATING | ContainerState.REMOVING:
            return Step.REMOVE
        case ContainerState.CREATED:
            return Step.KEEP if mounted.get(record.id, False) else Step.REMOUNT
        case ContainerState.EXITED:
            return Step.KEEP
    seen = observed[record.id]
    if seen.status is Status.RUNNING:
        return Step.RUN
    if record.state is ContainerState.STARTING and seen.exit is None and seen.status is not Status.UNKNOWN:
        return Step.RESET
    return Step.END


def _pod_step(record: PodRecord, views: Mapping[PodId, PodView]) -> Step:
    match record.state:
        case PodState.CREATING:
            return Step.REMOVE
        case PodState.STOPPING:
            return Step.STOP
        case PodState.REMOVING:
            # One that never came to be has no containers.
            return Step.STOP if record.created_at else Step.REMOVE
        case PodState.READY:
            view = views[record.id]
            return Step.KEEP if view.intact and view.init_alive else Step.DOWN
    return Step.KEEP


async def recover(node: Node, ended: ExitListener) -> list[Action]:
    """Make records and machine one; returns what was done. A failure with one object is logged and kept.

    `ended` is told of ends that cannot be recorded now: nobody would notice them again in this life.
    """
    store = node.store
    await node.images.recover(list(store.containers), list(store.pods))
    pods, containers = list(store.pods.values()), list(store.containers.values())
    await node.handlers.revive((pod.handler, pod.definition) for pod in pods)
    observed = await _observe(node, containers)
    mounted = {c.id: (node.paths.container(c.id) / "rootfs").is_mount() for c in containers}
    views = {p.id: await _view(node, p) for p in pods if p.state is PodState.READY}
    actions = plan(pods, containers, views, observed, mounted)
    for action in actions:
        try:
            await _act(node, action, ended)
        except CrispError as error:
            log.error("recovery of one object failed", extra={"id": action.id, "error": str(error)})
    await remove_strays(node)
    return actions


async def _observe(node: Node, containers: Sequence[ContainerRecord]) -> dict[ContainerId, Observed]:
    asked = [
        c
        for c in containers
        if c.state in (ContainerState.STARTING, ContainerState.RUNNING, ContainerState.UNKNOWN)
    ]
    seen = await asyncio.gather(*(_adopt(node, c) for c in asked))
    return {c.id: s for c, s in zip(asked, seen, strict=True)}


async def _adopt(node: Node, record: ContainerRecord) -> Observed:
    try:
        return await node.driver_of(record).adopt(target(node.paths, record))
    except CrispError as error:
        log.error("container cannot be observed", extra={"container": record.id, "error": str(error)})
        return Observed(status=Status.UNKNOWN, process=record.process)


async def _view(node: Node, record: PodRecord) -> PodView:
    intact = record.boot_id == node.boot_id and node.namespaces.intact(record.namespaces)
    alive = True
    if record.init is not None:
        seen = await node.driver_of(record).adopt(init.target(node, record))
        alive = seen.status is Status.RUNNING
    return PodView(intact=intact, init_alive=alive)


async def _act(node: Node, action: Action, ended: ExitListener) -> None:
    log.info("recovering", extra={"id": action.id, "step": action.step.value})
    pod = node.store.pods.get(PodId(action.id))
    if pod is not None:
        async with node.operations.exclusive(("pod", pod.id)):
            await _act_on_pod(node, node.store.pods[pod.id], action.step)
        return
    # A container that was adopted is watched, and its end may be told at any moment.
    async with node.operations.exclusive(("container", action.id)):
        record = node.store.containers[ContainerId(action.id)]
        await _act_on_container(node, record, action, ended)


async def _act_on_container(node: Node, record: ContainerRecord, action: Action, ended: ExitListener) -> None:
    driver = node.driver_of(record)
    seen = action.observed
    match action.step:
        case Step.REMOVE:
            await _remove_container(node, record)
        case Step.RUN:
            assert seen is not None
            if record.state is ContainerState.RUNNING:
                return
            await node.store.put(
                replace(
                    record,
                    state=next_container_state(record.state, ContainerEvent.STARTED),
                    process=seen.process or record.process,
                    started_at=record.started_at or node.now(),
                ),
                proven=True,
            )
        case Step.RESET:
            await reset(node, record)
        case Step.END:
            await _end_container(node, record, seen, ended)
        case Step.REMOUNT:
            pod = node.store.pods[record.pod_id]
            # With the pod's user namespace gone nothing of it can be mounted, nor started.
            if not pod.namespaces.user or node.namespaces.intact(pod.namespaces):
                await provide(node, driver, pod, record)


async def _end_container(
    node: Node, record: ContainerRecord, seen: Observed | None, ended: ExitListener
) -> None:
    exit_ = seen.exit if seen is not None else None
    if seen is not None and seen.status is Status.UNKNOWN:
        await node.store.put(
            replace(
                record,
                state=next_container_state(record.state, ContainerEvent.LOST)
                if record.state is not ContainerState.UNKNOWN
                else record.state,
                message="the runtime cannot be asked about it",
            )
        )
        return
    exit_ = exit_ or Exit(code=None, finished_at=node.now())
    try:
        await record_exit(node, record, exit_)
    except CrispError:
        ended(record.id, exit_)
        raise


async def _remove_container(node: Node, record: ContainerRecord) -> None:
    if has_process(record):
        record = await record_exit(node, record, Exit(code=None, finished_at=node.now()))
    removing = replace(
        record,
        state=next_container_state(record.state, ContainerEvent.REMOVE),
        # Whatever the runtime holds of a half-made object is unknown: it is asked.
        fault=record.fault or "interrupted",
    )
    await release_container(node, removing)
    await node.store.delete(record)


async def _act_on_pod(node: Node, pod: PodRecord, step: Step) -> None:
    match step:
        case Step.REMOVE:
            removing = replace(pod, state=next_pod_state(pod.state, PodEvent.REMOVE))
            removing = await release_pod(node, removing)
            await files.remove(node.paths.pod(pod.id))
            await node.store.delete(pod)
        case Step.DOWN:
            down = replace(pod, state=next_pod_state(pod.state, PodEvent.DIED))
            await node.store.put(down, proven=True)
        case Step.STOP:
            pass  # the janitor goes on with it once requests are served
