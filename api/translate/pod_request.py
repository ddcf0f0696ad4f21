"""PodSandboxConfig -> PodSpec, with everything refused that would do harm or could not work anywhere."""

from __future__ import annotations

import ipaddress
import re

from api.proto import cri_pb2
from api.translate import checks, resources, security
from oci.errors import BadInput
from oci.workload import DnsConfig, PodMetadata, PodSecurity, PodSpec, PortMapping

_PROTOCOLS = {cri_pb2.TCP: "tcp", cri_pb2.UDP: "udp", cri_pb2.SCTP: "sctp"}
_PORTS = range(1, 65536)
# include/linux/utsname.h __NEW_UTS_LEN
_MAX_HOSTNAME = 64
# sysctl(8) takes dots or slashes between the parts; interface names may hold both.
_SYSCTL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./@:-]*\Z")


def pod_spec(message: cri_pb2.PodSandboxConfig, path: str, *, handler: str = "") -> PodSpec:
    """`path` is what the message is called in its request: "config" or "sandbox_config"."""
    linux = message.linux
    context = f"{path}.linux.security_context"
    return PodSpec(
        metadata=_metadata(message, f"{path}.metadata"),
        hostname=_hostname(message.hostname, f"{path}.hostname"),
        log_directory=(
            checks.absolute(message.log_directory, f"{path}.log_directory") if message.log_directory else ""
        ),
        dns=_dns(message.dns_config, f"{path}.dns_config") if message.HasField("dns_config") else None,
        port_mappings=_ports(message, f"{path}.port_mappings"),
        labels=checks.mapping(message.labels, f"{path}.labels"),
        annotations=checks.mapping(
            message.annotations,
            f"{path}.annotations",
            limit=checks.ANNOTATION_LIMIT + checks.KUBELET_ANNOTATIONS,
        ),
        cgroup_parent=_cgroup_parent(linux.cgroup_parent, f"{path}.linux.cgroup_parent"),
        sysctls=_sysctls(dict(linux.sysctls), f"{path}.linux.sysctls"),
        security=_security(linux.security_context, context),
        overhead=(
            resources.from_wire(linux.overhead, f"{path}.linux.overhead")
            if linux.HasField("overhead")
            else None
        ),
        resources=(
            resources.from_wire(linux.resources, f"{path}.linux.resources")
            if linux.HasField("resources")
            else None
        ),
        handler=checks.word(handler, "runtime_handler"),
    )


def _metadata(message: cri_pb2.PodSandboxConfig, path: str) -> PodMetadata:
    if not message.HasField("metadata"):
        raise BadInput(f"{path}: missing")
    return PodMetadata(
        name=checks.name(message.metadata.name, f"{path}.name"),
        namespace=checks.name(message.metadata.namespace, f"{path}.namespace"),
        uid=checks.name(message.metadata.uid, f"{path}.uid"),
        attempt=message.metadata.attempt,
    )


def _hostname(value: str, path: str) -> str:
    checks.word(checks.text(value, path, limit=_MAX_HOSTNAME), path)
    if "/" in value:
        raise BadInput(f"{path}: {value!r} contains '/'")
    return value


def _dns(message: cri_pb2.DNSConfig, path: str) -> DnsConfig:
    def words(kind: str, values: list[str]) -> tuple[str, ...]:
        return tuple(checks.word(value, f"{path}.{kind}[{index}]") for index, value in enumerate(values))

    return DnsConfig(
        servers=words("servers", list(message.servers)),
        searches=words("searches", list(message.searches)),
        options=words("options", list(message.options)),
    )


def _ports(message: cri_pb2.PodSandboxConfig, path: str) -> tuple[PortMapping, ...]:
    """The mappings that map something: kubelet also sends ports that have no port of the node."""
    result = []
    for index, port in enumerate(message.port_mappings):
        here = f"{path}[{index}]"
        protocol = checks.choice(port.protocol, _PROTOCOLS, f"{here}.protocol")
        if port.host_port <= 0:
            continue
        for side, number in (("host_port", port.host_port), ("container_port", port.container_port)):
            if number not in _PORTS:
                raise BadInput(f"{here}.{side}: {number} is not a port")
        if port.host_ip:
            try:
                ipaddress.ip_address(port.host_ip)
            except ValueError:
                raise BadInput(f"{here}.host_ip: {port.host_ip[:80]!r} is not an address") from None
        result.append(
            PortMapping(
                protocol=protocol,
                container_port=port.container_port,
                host_port=port.host_port,
                host_ip=port.host_ip,
            )
        )
    return tuple(result)


def _cgroup_parent(value: str, path: str) -> str:
    checks.line(value, path)
    if ".." in value.split("/"):
        raise BadInput(f"{path}: {value[:80]!r} contains '..'")
    return value


def _sysctls(values: dict[str, str], path: str) -> dict[str, str]:
    for key, value in values.items():
        if not _SYSCTL.match(key) or ".." in key:
            raise BadInput(f"{path}: {key[:80]!r} is not the name of a sysctl")
        checks.text(value, f"{path}[{key!r}]", limit=4096)
    return values


def _security(message: cri_pb2.LinuxSandboxSecurityContext, path: str) -> PodSecurity:
    return PodSecurity(
        namespaces=security.namespaces(
            message.namespace_options, f"{path}.namespace_options", of_container=False
        ),
        user=security.user(message, path),
        privileged=message.privileged,
        readonly_rootfs=message.readonly_rootfs,
        seccomp=security.seccomp(message, path),
        apparmor=security.apparmor(message, path),
        selinux=(
            security.selinux(message.selinux_options, f"{path}.selinux_options")
            if message.HasField("selinux_options")
            else None
        ),
    )
