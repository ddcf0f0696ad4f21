"""CreateContainer: a root file system and a bundle, ready to start; or nothing."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from oci.bundle import build
from oci.bundle.inputs import Built, BundleInputs, NamespacePaths
from oci.cdi import asked_names
from oci.cgroup import CgroupPlace
from oci.errors import Absent, BadInput, Duplicate, WrongState
from oci.workload import ContainerId, ContainerSpec, NamespaceMode, PodId, PodSpec
from shim.containers import rootfs, volumes
from shim.containers.looks import Looks, look
from shim.containers.pid_target import pid_target
from shim.containers.remove import release
from shim.containers.stop import signal_number
from shim.files import make_private_directory, write_atomic, writing
from shim.lifecycle.table import ContainerEvent, next_container_state
from shim.lifecycle.undo import Debt, Undo
from shim.node import Node
from shim.placement import placed
from shim.pods import files, imagevolumes, init
from shim.pods.lookup import current as current_pod
from shim.pods.lookup import owners
from shim.records import ContainerRecord, ContainerState, ImageRecord, PodRecord, PodState
from shim.threads import in_thread

log = logging.getLogger(__name__)


def name_key(pod_id: PodId, spec: ContainerSpec) -> tuple[str, ...]:
    """What makes a container unique within its pod."""
    return ("container", pod_id, spec.metadata.name, str(spec.metadata.attempt))


async def create(
    node: Node, pod: PodRecord, spec: ContainerSpec, delivered: set[ContainerId]
) -> ContainerRecord:
    """Prepare the container and return its CREATED record.

    Retries join as for pods. Raises WrongState unless the pod is READY, Absent for an image that is not here,
    BadInput naming the field that is wrong; nothing is left then.
    """
    key = name_key(pod.id, spec)
    held = next((c for c in node.store.containers_of(pod.id) if name_key(pod.id, c.spec) == key), None)
    if held is not None and held.state is not ContainerState.CREATING:
        if held.state is ContainerState.CREATED and held.spec == spec and held.id not in delivered:
            delivered.add(held.id)
            return held
        raise Duplicate(
            f"config.metadata: container {spec.metadata.name} (attempt {spec.metadata.attempt}) exists in"
            f" pod sandbox {pod.id} as {held.id} in state {held.state.value}"
        )
    record = await node.operations.join(key, spec, lambda: _create(node, pod, spec))
    delivered.add(record.id)
    return record


async def _create(node: Node, pod: PodRecord, spec: ContainerSpec) -> ContainerRecord:
    _require_ready(node, pod.id)
    _check(spec, pod.spec)
    image = node.images.find(spec.image.image)
    if image is None:
        raise Absent(f"config.image.image: {spec.image.image!r} is not in the image store, pull it first")
    asked = spec.image.user_specified_image or spec.image.image
    await node.images.check(image, asked, pod.spec.metadata.namespace)
    image_mounts = await imagevolumes.wanted(node, spec, pod.spec.metadata.namespace)
    driver = node.driver_of(pod)
    id_ = ContainerId(node.new_id())
    place = placed(node, pod.spec.cgroup_parent, id_)
    record = ContainerRecord(
        id=id_,
        pod_id=pod.id,
        realm=pod.realm,
        spec=spec,
        state=ContainerState.CREATING,
        created_at=0,
        handler=pod.handler,
        image_id=image.id,
        image_ref=image.digests[0] if image.digests else image.id,
        log_path=_log_path(spec, pod.spec),
        cgroup=place.kernel_path,
        stop_signal=_stop_signal(spec, image),
        image_mounts=image_mounts,
    )
    directory, owner = node.paths.container(id_), owners(pod)
    async with node.operations.exclusive(("container", id_)), Undo(_settle(node, record)) as undo:
        await node.store.put(record)
        _require_ready(node, pod.id)  # a stop that came between has not seen this container
        if any(image_mounts):
            undo.push("image volumes", lambda: imagevolumes.drop_unused(node, pod.id, but=id_))
        undo.push("container", lambda: release(node, record))
        provided = await imagevolumes.provide(node, pod, spec, image_mounts)
        root = await rootfs.provide(node, driver, pod, record)
        seen = await look(node, spec, image, root.path, provided)
        anonymous = await volumes.prepare(
            image.config.volumes,
            [mount.container_path for mount in spec.mounts],
            rootfs=root.path,
            directory=directory,
            root=owner.root if owner is not None else (0, 0),
        )
        built = _build(node, record, pod, image, place, seen, anonymous, root.named)
        await in_thread(_write_bundle, directory, built)
        for note in built.notes:
            log.info("request reduced to what the host allows", extra={"container": id_, "what": note})
        _require_ready(node, pod.id)
        record = replace(
            record,
            state=next_container_state(record.state, ContainerEvent.COMMIT),
            created_at=node.now(),
            uid=seen.user.uid,
            gid=seen.user.gid,
            supplemental_groups=seen.user.groups,
        )
        await node.store.put(record)
        undo.commit()
    return record


def _build(
    node: Node,
    record: ContainerRecord,
    pod: PodRecord,
    image: ImageRecord,
    place: CgroupPlace,
    seen: Looks,
    anonymous: tuple[tuple[str, str], ...],
    root: str,
) -> Built:
    return build(
        BundleInputs(
            id=record.id,
            container=record.spec,
            pod_id=pod.id,
            pod=pod.spec,
            image=image.config,
            image_name=record.spec.image.user_specified_image or record.spec.image.image,
            user=seen.user,
            working_dir=seen.working_dir,
            host=node.host,
            handler=node.traits_of(pod),
            defaults=node.defaults,
            files=files.pod_files(pod, node.paths.pod(pod.id)),
            namespaces=NamespacePaths(
                network=pod.namespaces.network,
                ipc=pod.namespaces.ipc,
                uts=pod.namespaces.uts,
                user=pod.namespaces.user,
                pid=pid_target(node.store, pod.realm, pod.id, record.spec)
                or _pods_pid_namespace(pod, record.spec),
            ),
            cgroup=place,
            mounts=seen.mounts,
            volumes=anonymous,
            devices=seen.devices,
            localhost_seccomp=seen.localhost_seccomp,
            hooks=seen.hooks,
            edits=seen.edits,
            edit_devices=seen.edit_devices,
            selinux_level=pod.selinux_level,
            rootfs=root,
        )
    )


def _pods_pid_namespace(pod: PodRecord, spec: ContainerSpec) -> str:
    return init.pid_namespace(pod) if spec.security.namespaces.pid is NamespaceMode.POD else ""


def _require_ready(node: Node, pod_id: PodId) -> None:
    pod = current_pod(node.store, pod_id)
    if pod.state is not PodState.READY:
        raise WrongState(f"pod sandbox {pod_id} is {pod.state.value}, no container can be made in it")


def _check(spec: ContainerSpec, pod: PodSpec) -> None:
    if spec.security.privileged and not pod.security.privileged:
        raise BadInput("config.linux.security_context.privileged: the pod sandbox is not privileged")
    asked_names(spec.cdi_devices, spec.annotations)
    wanted, given = spec.security.namespaces.user, pod.security.namespaces.user
    if wanted != given:
        raise BadInput(
            "config.linux.security_context.namespace_options.userns_options: differ from the pod sandbox's"
        )


def _log_path(spec: ContainerSpec, pod: PodSpec) -> str:
    if not spec.log_path or not pod.log_directory:
        return ""
    return str(Path(pod.log_directory) / spec.log_path)


def _stop_signal(spec: ContainerSpec, image: ImageRecord) -> str:
    if spec.stop_signal:
        signal_number(spec.stop_signal)
        return spec.stop_signal
    declared = image.config.stop_signal
    try:
        signal_number(declared)
    except BadInput:
        return "SIGTERM"
    return declared if declared.upper().startswith("SIG") or declared.isdigit() else f"SIG{declared.upper()}"


def _write_bundle(directory: Path, built: Built) -> None:
    with writing("bundle", directory):
        make_private_directory(directory)
        write_atomic(directory / "config.json", json.dumps(built.config, separators=(",", ":")).encode())


def _settle(node: Node, record: ContainerRecord) -> Callable[[tuple[Debt, ...]], Awaitable[None]]:
    async def settle(debts: tuple[Debt, ...]) -> None:
        if not debts:
            await node.store.delete(record)
            return
        owed = "; ".join(f"{debt.step}: {debt.error}" for debt in debts)
        await node.store.put(replace(record, state=ContainerState.REMOVING, fault=owed))

    return settle
