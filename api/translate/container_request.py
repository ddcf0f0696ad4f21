"""ContainerConfig -> ContainerSpec, with everything refused that would do harm or could not work anywhere."""

from __future__ import annotations

from collections.abc import Iterable

from api.proto import cri_pb2
from api.translate import checks, mounts, resources, security, signals
from api.translate.images import image_spec
from oci.errors import BadInput
from oci.workload import Capabilities, ContainerMetadata, ContainerSecurity, ContainerSpec, DeviceRequest

# fs/exec.c bprm_stack_limits: three quarters of the default stack are the most that any process can have.
_MAX_ARGUMENTS = 6 * 1024 * 1024

# kubelet keeps whole hooks as JSON in a container's annotations.
_KUBELET_ANNOTATIONS = 256 * 1024


def container_spec(message: cri_pb2.ContainerConfig, path: str) -> ContainerSpec:
    """`path` is what the message is called in its request: "config"."""
    linux = message.linux
    command = arguments(message.command, f"{path}.command")
    args = arguments(message.args, f"{path}.args")
    envs = _envs(message, f"{path}.envs")
    size = sum(len(word.encode()) + 1 for word in (*command, *args))
    size += sum(len(entry.key.encode()) + len(entry.value) + 2 for entry in message.envs)
    if size > _MAX_ARGUMENTS:
        raise BadInput(f"{path}: command, args and envs are {size} bytes, more than execve takes")
    return ContainerSpec(
        metadata=_metadata(message, f"{path}.metadata"),
        image=image_spec(message.image, f"{path}.image"),
        command=command,
        args=args,
        working_dir=_working_dir(message.working_dir, f"{path}.working_dir"),
        envs=envs,
        mounts=tuple(
            mounts.from_wire(mount, f"{path}.mounts[{index}]") for index, mount in enumerate(message.mounts)
        ),
        devices=tuple(
            _device(device, f"{path}.devices[{index}]") for index, device in enumerate(message.devices)
        ),
        cdi_devices=tuple(
            _cdi_device(device, f"{path}.CDI_devices[{index}]")
            for index, device in enumerate(message.CDI_devices)
        ),
        labels=checks.mapping(message.labels, f"{path}.labels"),
        annotations=checks.mapping(
            message.annotations,
            f"{path}.annotations",
            limit=checks.ANNOTATION_LIMIT + _KUBELET_ANNOTATIONS,
        ),
        log_path=checks.relative(message.log_path, f"{path}.log_path") if message.log_path else "",
        stdin=message.stdin,
        stdin_once=message.stdin_once,
        tty=message.tty,
        resources=resources.from_wire(linux.resources, f"{path}.linux.resources"),
        security=_security(linux.security_context, f"{path}.linux.security_context"),
        stop_signal=signals.to_name(message.stop_signal, f"{path}.stop_signal"),
    )


def arguments(values: Iterable[str], path: str) -> tuple[str, ...]:
    """Words for execve(2). Raises BadInput for one that it refuses (NUL, more than 128 KiB)."""
    return tuple(checks.text(value, f"{path}[{index}]") for index, value in enumerate(values))


def _metadata(message: cri_pb2.ContainerConfig, path: str) -> ContainerMetadata:
    if not message.HasField("metadata"):
        raise BadInput(f"{path}: missing")
    return ContainerMetadata(
        name=checks.name(message.metadata.name, f"{path}.name"), attempt=message.metadata.attempt
    )


def _working_dir(value: str, path: str) -> str:
    if value and not checks.text(value, path, limit=4095).startswith("/"):
        raise BadInput(f"{path}: {value[:80]!r} is not an absolute path")
    return value


def _envs(message: cri_pb2.ContainerConfig, path: str) -> tuple[tuple[str, str], ...]:
    result = []
    for index, entry in enumerate(message.envs):
        here = f"{path}[{index}]"
        if not entry.key:
            raise BadInput(f"{here}.key: empty")
        if "=" in checks.text(entry.key, f"{here}.key"):
            raise BadInput(f"{here}.key: {entry.key[:80]!r} contains '='")
        if b"\0" in entry.value:
            raise BadInput(f"{here}.value: contains a NUL byte")
        size = len(entry.key.encode()) + 1 + len(entry.value)
        if size > checks.MAX_STRING:
            # The value may be a secret: only its size is told.
            raise BadInput(f"{here}.value: {size} bytes with the name, execve takes {checks.MAX_STRING}")
        result.append((entry.key, entry.value.decode("utf-8", "surrogateescape")))
    return tuple(result)


def _device(message: cri_pb2.Device, path: str) -> DeviceRequest:
    if not message.permissions or set(message.permissions) - set("rwm"):
        raise BadInput(f"{path}.permissions: {message.permissions[:80]!r} is not made of the letters rwm")
    return DeviceRequest(
        container_path=checks.absolute(message.container_path, f"{path}.container_path"),
        host_path=checks.absolute(message.host_path, f"{path}.host_path"),
        permissions=message.permissions,
    )


def _cdi_device(message: cri_pb2.CDIDevice, path: str) -> str:
    if not checks.word(message.name, f"{path}.name"):
        raise BadInput(f"{path}.name: empty")
    return message.name


def _security(message: cri_pb2.LinuxContainerSecurityContext, path: str) -> ContainerSecurity:
    return ContainerSecurity(
        capabilities=_capabilities(message.capabilities, f"{path}.capabilities"),
        privileged=message.privileged,
        namespaces=security.namespaces(
            message.namespace_options, f"{path}.namespace_options", of_container=True
        ),
        selinux=(
            security.selinux(message.selinux_options, f"{path}.selinux_options")
            if message.HasField("selinux_options")
            else None
        ),
        user=security.user(message, path),
        readonly_rootfs=message.readonly_rootfs,
        no_new_privs=message.no_new_privs,
        masked_paths=_paths(message.masked_paths, f"{path}.masked_paths"),
        readonly_paths=_paths(message.readonly_paths, f"{path}.readonly_paths"),
        seccomp=security.seccomp(message, path),
        apparmor=security.apparmor(message, path),
    )


def _capabilities(message: cri_pb2.Capability, path: str) -> Capabilities:
    def words(kind: str) -> tuple[str, ...]:
        return tuple(
            checks.word(value, f"{path}.{kind}[{index}]")
            for index, value in enumerate(getattr(message, kind))
        )

    return Capabilities(
        add=words("add_capabilities"),
        drop=words("drop_capabilities"),
        add_ambient=words("add_ambient_capabilities"),
    )


def _paths(values: Iterable[str], path: str) -> tuple[str, ...]:
    return tuple(checks.absolute(value, f"{path}[{index}]") for index, value in enumerate(values))
