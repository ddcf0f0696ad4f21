"""RunPodSandbox: from a request to a READY pod, or to nothing."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace

from oci.cni import NetworkRequest
from oci.errors import BadInput, Duplicate, Unsupported
from oci.selinux import file_label, new_level
from oci.workload import NamespaceMode, NamespaceOptions, PodId, PodSpec
from shim.lifecycle.table import PodEvent, next_pod_state
from shim.lifecycle.undo import Debt, Undo
from shim.namespaces.sysctls import default_sysctls, with_defaults
from shim.node import Node
from shim.pods import files, init
from shim.records import PodRecord, PodState

log = logging.getLogger(__name__)


def name_key(realm: str, spec: PodSpec) -> tuple[str, ...]:
    """What makes a pod unique: a live one of the same key is a duplicate."""
    meta = spec.metadata
    return ("pod", realm, meta.namespace, meta.name, meta.uid, str(meta.attempt))


async def run(node: Node, realm: str, spec: PodSpec, delivered: set[PodId]) -> PodRecord:
    """Make the pod and return its READY record.

    An equal request joins the work in flight, or takes the result that no caller has had. Raises Duplicate
    for a live pod of that name, BadInput for a field that is wrong, and what the failing stage raised
    otherwise; then nothing is left that a record does not know.
    """
    key = name_key(realm, spec)
    held = next((p for p in node.store.pods.values() if name_key(p.realm, p.spec) == key), None)
    if held is not None and held.state is not PodState.CREATING:
        if held.state is PodState.READY and held.spec == spec and held.id not in delivered:
            delivered.add(held.id)
            return held
        meta = spec.metadata
        raise Duplicate(
            f"config.metadata: pod {meta.namespace}/{meta.name} (uid {meta.uid}, attempt {meta.attempt})"
            f" exists as {held.id} in state {held.state.value}"
        )
    record = await node.operations.join(key, spec, lambda: _run(node, realm, spec))
    delivered.add(record.id)
    return record


async def _run(node: Node, realm: str, spec: PodSpec) -> PodRecord:
    choice = node.handlers.choose(spec)
    driver = node.handlers.driver(choice.handler)
    _check(node, driver.handler, spec)
    id_ = PodId(node.new_id())
    options = spec.security.namespaces
    own_network = options.network is not NamespaceMode.NODE
    record = PodRecord(
        id=id_,
        realm=realm,
        spec=spec,
        state=PodState.CREATING,
        created_at=0,
        handler=driver.handler,
        definition=node.handlers.definition(driver.handler),
        handler_reason=choice.reason,
        boot_id=node.boot_id,
        namespaces=node.namespaces.plan(id_, options),
        network_owed=own_network,
        selinux_level=_selinux_level(node, spec),
    )
    sysctls = with_defaults(spec.sysctls, default_sysctls(node.settings.containers.default_sysctls), options)
    hostname = files.effective_hostname(spec, node.host.hostname)
    directory = node.paths.pod(id_)
    async with node.operations.exclusive(("pod", id_)), Undo(_settle(node, record)) as undo:
        await node.store.put(record)
        log.info("handler is chosen", extra={"handler": driver.handler, "reason": choice.reason})
        undo.push("pod directory", _call(files.remove, directory))
        await files.make(spec, directory, hostname=hostname, shm_size=int(node.settings.containers.shm_size))
        if record.selinux_level:
            await files.label(directory, file_label(record.selinux_level))
        undo.push("namespaces", _call(node.namespaces.unpin, record.namespaces))
        await node.namespaces.pin(record.namespaces, options, hostname=hostname, sysctls=sysctls)
        if own_network:
            request = network_request(record)
            # Pushed before ADD: a plugin may have allocated even when it fails.
            undo.push("network", _call(node.network.detach, request), budget=90.0)
            record = replace(record, network=await node.network.attach(request))
            await node.namespaces.configure_interfaces(record.namespaces, sysctls)
        if init.needed(driver, spec):
            undo.push("first process", _call(init.remove, node, record))
            process, monitor = await init.start(node, driver, record)
            record = replace(record, init=process, init_monitor=monitor)
        record = replace(record, state=next_pod_state(record.state, PodEvent.COMMIT), created_at=node.now())
        await node.store.put(record)
        undo.commit()
    return record


def network_request(record: PodRecord, *, netns_gone: bool = False) -> NetworkRequest:
    """What CNI is asked for this pod; with the namespace gone DEL still runs, without a path."""
    return NetworkRequest(
        pod_id=record.id,
        metadata=record.spec.metadata,
        netns="" if netns_gone else record.namespaces.network,
        port_mappings=record.spec.port_mappings,
        annotations=record.spec.annotations,
        dns=record.spec.dns,
        cgroup_parent=record.spec.cgroup_parent,
    )


def _selinux_level(node: Node, spec: PodSpec) -> str:
    """The level that the request names, else one that no pod has. The record is put before anybody waits."""
    if not node.host.selinux:
        return ""
    asked = spec.security.selinux
    if asked is not None and asked.level:
        return asked.level
    return new_level({pod.selinux_level for pod in node.store.pods.values()}, secrets.randbelow)


def _check(node: Node, handler: str, spec: PodSpec) -> None:
    options = spec.security.namespaces
    if options.user is not None:
        _check_user_namespace(node, handler, options)
    if options.pid is NamespaceMode.TARGET:
        raise BadInput(
            "config.linux.security_context.namespace_options.pid: TARGET is for containers, not for pods"
        )


def _check_user_namespace(node: Node, handler: str, options: NamespaceOptions) -> None:
    field = "config.linux.security_context.namespace_options.userns_options"
    if not node.handlers.traits(handler).user_namespaces:
        raise Unsupported(
            f"{field}: handler {handler!r} has no user namespaces: its `features` must name the namespace"
            " and id-mapped mounts (runc has them from 1.2)"
        )
    if node.no_user_namespaces:
        raise Unsupported(f"{field}: {node.no_user_namespaces}")


def _settle(node: Node, record: PodRecord) -> Callable[[tuple[Debt, ...]], Awaitable[None]]:
    async def settle(debts: tuple[Debt, ...]) -> None:
        if not debts:
            await node.store.delete(record)
            return
        owed = "; ".join(f"{debt.step}: {debt.error}" for debt in debts)
        await node.store.put(replace(record, state=PodState.REMOVING, fault=owed))

    return settle


def _call(function: Callable[..., Awaitable[None]], *args: object) -> Callable[[], Awaitable[None]]:
    return lambda: function(*args)
