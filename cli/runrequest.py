"""From the words of `crisp run` to the requests for its pod and its container.

Pure: paths and the environment arrive as arguments. The daemon judges what the fields may be; here only the
notations are known that it never sees (HOST:CONTAINER, K=V, 64m).
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from api.proto import cri_pb2
from cli import runlogs
from cli.inventory import RUN
from config.units import parse_size
from oci.errors import BadInput

CPU_PERIOD = 100_000
"""Microseconds of a scheduling period; the quota is a part of it."""

INVOCATION = "crisp.run/invocation"
"""An annotation that differs between two calls: they must not join each other's pod."""

_UIDS = uuid.UUID("6c5f37a6-4c0f-5f0e-9a53-3a4f4c1a7d5e")
_DOCKER_SIZE = re.compile(r"([0-9]+)([kmg])\Z", re.IGNORECASE)
_PORT = re.compile(
    r"(?:(?P<ip>\[[0-9a-fA-F:.]+\]|[0-9.]+):)?(?P<host>\d+):(?P<container>\d+)(?:/(?P<protocol>\w+))?\Z"
)
_PROTOCOLS = {"tcp": cri_pb2.TCP, "udp": cri_pb2.UDP, "sctp": cri_pb2.SCTP}

# What kubelet asks for with the default procMount; a container may not see or change these of the node.
_MASKED = (
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
)  # fmt: skip
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What was typed."""

    image: str
    command: tuple[str, ...] = ()
    entrypoint: str = ""
    name: str = ""
    ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    host_network: bool = False
    memory: str = ""
    cpus: float = 0.0
    user: str = ""
    workdir: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is sent: the pod and its container."""

    pod: cri_pb2.PodSandboxConfig
    container: cri_pb2.ContainerConfig

    @property
    def path(self) -> str:
        return f"{self.pod.metadata.namespace}/{self.pod.metadata.name}"


def build(
    wanted: Wanted, *, logs: Path, suffix: str, environment: Mapping[str, str], directory: Path
) -> Request:
    """The requests. `suffix` makes a name of our own unique; relative paths begin at `directory`.

    Raises BadInput naming the option.
    """
    base = _base_name(wanted.image)
    name = wanted.name or f"{base}-{suffix}"
    # One uid for one name: the daemon itself then refuses a second pod of that name.
    uid = str(uuid.uuid5(_UIDS, name))
    namespaces = cri_pb2.NamespaceOption(
        network=cri_pb2.NODE if wanted.host_network else cri_pb2.POD, pid=cri_pb2.CONTAINER
    )
    if wanted.host_network and wanted.ports:
        raise BadInput("--publish: with --host-network every port is the node's already")
    pod = cri_pb2.PodSandboxConfig(
        metadata=cri_pb2.PodSandboxMetadata(name=name, namespace=RUN, uid=uid),
        hostname="" if wanted.host_network else name[:63],
        log_directory=str(runlogs.directory(logs, namespace=RUN, name=name, uid=uid)),
        port_mappings=[_port(text) for text in wanted.ports],
        annotations={INVOCATION: suffix},
        linux=cri_pb2.LinuxPodSandboxConfig(
            security_context=cri_pb2.LinuxSandboxSecurityContext(namespace_options=namespaces)
        ),
    )
    security = cri_pb2.LinuxContainerSecurityContext(
        namespace_options=namespaces,
        seccomp=cri_pb2.SecurityProfile(profile_type=cri_pb2.SecurityProfile.RuntimeDefault),
        masked_paths=_MASKED,
        readonly_paths=_READ_ONLY,
    )
    _set_user(security, wanted.user)
    container = cri_pb2.ContainerConfig(
        metadata=cri_pb2.ContainerMetadata(name=base),
        image=cri_pb2.ImageSpec(image=wanted.image, user_specified_image=wanted.image),
        command=[wanted.entrypoint] if wanted.entrypoint else [],
        args=wanted.command,
        working_dir=wanted.workdir,
        envs=[_variable(text, environment) for text in wanted.environment],
        mounts=[_mount(text, directory) for text in wanted.volumes],
        log_path=runlogs.log_path(base),
        linux=cri_pb2.LinuxContainerConfig(resources=_resources(wanted), security_context=security),
    )
    return Request(pod=pod, container=container)


def _base_name(image: str) -> str:
    """The last part of the image's name, made fit for the name of a pod."""
    last = image.partition("@")[0].rpartition("/")[2].partition(":")[0].lower()
    return re.sub(r"[^a-z0-9]+", "-", last).strip("-")[:40].strip("-") or "container"


def _port(text: str) -> cri_pb2.PortMapping:
    match = _PORT.match(text)
    if match is None:
        raise BadInput(
            f"--publish: {text[:80]!r} is not HOST:CONTAINER, such as 8080:80 or 127.0.0.1:53:53/udp"
        )
    protocol = (match["protocol"] or "tcp").lower()
    if protocol not in _PROTOCOLS:
        raise BadInput(f"--publish: {text[:80]!r}: {protocol[:20]!r} is none of tcp, udp, sctp")
    numbers = []
    for side in ("host", "container"):
        number = int(match[side][:9])
        if not 1 <= number <= 65535:
            raise BadInput(f"--publish: {text[:80]!r}: {match[side][:12]} is not a port")
        numbers.append(number)
    return cri_pb2.PortMapping(
        protocol=_PROTOCOLS[protocol],
        host_port=numbers[0],
        container_port=numbers[1],
        host_ip=(match["ip"] or "").strip("[]"),
    )


def _mount(text: str, directory: Path) -> cri_pb2.Mount:
    host, colon, rest = text.partition(":")
    path, _, options = rest.partition(":")
    if not (host and colon and path):
        raise BadInput(f"--volume: {text[:80]!r} is not HOST:PATH or HOST:PATH:ro")
    if not path.startswith("/"):
        raise BadInput(f"--volume: {text[:80]!r}: {path[:80]!r} is not an absolute path in the container")
    if options not in ("", "ro", "rw"):
        raise BadInput(f"--volume: {text[:80]!r}: {options[:20]!r} is neither ro nor rw")
    source = directory / host
    if not source.exists():
        raise BadInput(f"--volume: {source} does not exist on this node, create it first")
    return cri_pb2.Mount(host_path=str(source.resolve()), container_path=path, readonly=options == "ro")


def _variable(text: str, environment: Mapping[str, str]) -> cri_pb2.KeyValue:
    key, equals, value = text.partition("=")
    if not key:
        raise BadInput(f"--env: {text[:80]!r} is not KEY=VALUE")
    if not equals:
        if key not in environment:
            raise BadInput(f"--env: {key[:80]!r} is not set here; write {key[:80]}=VALUE")
        value = environment[key]
    return cri_pb2.KeyValue(key=key, value=os.fsencode(value))


def _resources(wanted: Wanted) -> cri_pb2.LinuxContainerResources:
    resources = cri_pb2.LinuxContainerResources()
    if wanted.memory:
        resources.memory_limit_in_bytes = _size(wanted.memory)
    if wanted.cpus:
        if not 0.01 <= wanted.cpus <= 4096:
            raise BadInput(f"--cpus: {wanted.cpus:g} is not a number of processors (0.01 to 4096)")
        resources.cpu_period = CPU_PERIOD
        resources.cpu_quota = round(wanted.cpus * CPU_PERIOD)
        resources.cpu_shares = max(2, round(wanted.cpus * 1024))
    return resources


def _size(text: str) -> int:
    docker = _DOCKER_SIZE.match(text)
    try:
        # "64m" as Docker has it is a power of 1024.
        return int(parse_size(f"{docker[1]}{docker[2]}iB" if docker else text))
    except ValueError as error:
        raise BadInput(f"--memory: {error}") from None


def _set_user(security: cri_pb2.LinuxContainerSecurityContext, text: str) -> None:
    if not text:
        return
    user, colon, group = text.partition(":")
    if user.isascii() and user.isdecimal():
        security.run_as_user.value = _id(user, text)
    else:
        security.run_as_username = user
    if colon:
        if not (group.isascii() and group.isdecimal()):
            raise BadInput(f"--user: {text[:80]!r}: the group must be a number")
        security.run_as_group.value = _id(group, text)


def _id(digits: str, text: str) -> int:
    if len(digits) > 10:
        raise BadInput(f"--user: {text[:80]!r} is not a user or group id")
    return int(digits)
