"""UpdateContainerResources: other limits for a container, in the kernel and in its record, or in neither."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from oci.bundle.resources import at_creation, resources
from oci.errors import CrispError, Internal, WrongState
from oci.facts import CgroupDriver
from oci.limits import difference, merged
from oci.workload import ContainerId, Resources
from shim import stats
from shim.containers.lookup import current
from shim.containers.target import target
from shim.files import write_atomic
from shim.lifecycle.undo import to_the_end
from shim.node import Node
from shim.records import ContainerRecord, ContainerState
from shim.threads import in_thread

log = logging.getLogger(__name__)

_FIELD = "linux"
_NAMES = {
    field.name: {
        "memory_limit": "memory_limit_in_bytes",
        "memory_swap_limit": "memory_swap_limit_in_bytes",
    }.get(field.name, field.name)
    for field in fields(Resources)
}
"""The members of a request's limits -> what the interface calls them."""


async def update(node: Node, id_: ContainerId, change: Resources) -> None:
    """Change the set members of the limits of a CREATED or RUNNING container.

    A created one gets them at its start. Raises WrongState in other states, BadInput for what cannot be, and
    what the kernel answered otherwise; nothing is changed then.
    """
    key = ("update container", id_, node.new_id())  # no retry joins: each change counts
    await node.operations.join(key, change, lambda: _update(node, id_, change))


async def _update(node: Node, id_: ContainerId, change: Resources) -> None:
    async with node.operations.exclusive(("container", id_)):
        record = current(node.store, id_)
        if record.state not in (ContainerState.CREATED, ContainerState.RUNNING):
            raise WrongState(f"container {id_} is {record.state.value}, its limits cannot be changed")
        wanted = merged(record.limits, change, swap_accounting=node.host.swap_accounting)
        whole, _ = resources(wanted, node.host, pids_limit=node.defaults.pids_limit, field=_FIELD)
        whole = at_creation(whole)
        undo: list[Callable[[], Awaitable[None]]] = []
        try:
            if record.state is ContainerState.RUNNING:
                changed = difference(record.limits, wanted)
                live, _ = resources(changed, node.host, field=_FIELD)
                if live:
                    await _check_memory(node, record, wanted)
                    undo.append(lambda: _remind_systemd(node, record, wanted))
                    undo.append(await _live(node, record, changed, live))
            path = node.paths.container(id_) / "config.json"
            before = await in_thread(_rewrite, path, whole)
            undo.append(lambda: in_thread(write_atomic, path, before))
            await node.store.put(replace(record, resources=wanted))
        except BaseException:
            for step in reversed(undo):
                await to_the_end(step())
            raise


async def _live(
    node: Node, record: ContainerRecord, changed: Resources, limits: Mapping[str, Any]
) -> Callable[[], Awaitable[None]]:
    """Change them in the kernel; the way back."""
    driver = node.driver_of(record)
    try:
        return await driver.update(target(node.paths, record), limits)
    except WrongState as error:
        asked = [name for member, name in _NAMES.items() if getattr(changed, member)]
        raise WrongState(
            f"{_FIELD} ({', '.join(asked)}): the kernel refuses, nothing is changed: {error.message}"
        ) from error


async def _remind_systemd(node: Node, record: ContainerRecord, wanted: Resources) -> None:
    """Tell systemd again what is in force: it keeps what was refused, for when anything changes next.

    What had no limit before cannot be said.
    """
    if node.host.cgroup.version == 1 or node.host.cgroup.driver is not CgroupDriver.SYSTEMD:
        return
    before, _ = resources(difference(wanted, record.limits), node.host, field=_FIELD)
    if not before:
        return
    try:
        await node.driver_of(record).update(target(node.paths, record), before)
    except CrispError as error:
        log.warning("systemd is not told", extra={"container": record.id, "error": error.message})


async def _check_memory(node: Node, record: ContainerRecord, wanted: Resources) -> None:
    """Version 2 takes any limit and kills until it fits; version 1 refuses, which is what callers expect."""
    if node.host.cgroup.version == 1 or not wanted.memory_limit:
        return
    used = await in_thread(stats.read_memory, record.cgroup, node.host)
    if used is not None and used.working_set is not None and used.working_set > wanted.memory_limit:
        raise WrongState(
            f"{_FIELD}.memory_limit_in_bytes: {wanted.memory_limit} is below the {used.working_set} bytes"
            f" that container {record.id} needs now, the kernel would kill it"
        )


def _rewrite(path: Path, limits: Mapping[str, Any]) -> bytes:
    """Give the bundle other limits; its device rules stay. Returns what it was."""
    try:
        before = path.read_bytes()
        config = json.loads(before)
        kept = config["linux"].get("resources", {}).get("devices", [])
        config["linux"]["resources"] = {"devices": kept, **limits}
        write_atomic(path, json.dumps(config, separators=(",", ":")).encode())
    except (OSError, ValueError, KeyError) as error:
        raise Internal(f"update: the bundle's {path} cannot be rewritten: {error}") from error
    return before
