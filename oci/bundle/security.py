"""Masked and read-only paths, seccomp, AppArmor and SELinux of a container (CRI).

What is asked for explicitly and cannot be had is refused; the exception is SELinux, which Kubernetes defines
to have no effect on a machine without it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from oci.bundle import seccomp
from oci.bundle.inputs import BundleInputs
from oci.bundle.text import absolute_path
from oci.errors import BadInput, Unsupported
from oci.selinux import file_label
from oci.workload import ContainerSecurity, PodSecurity, ProfileKind, SecurityProfile, SelinuxOption

DEFAULT_MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
DEFAULT_READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
"""For callers that are not kubelet, which names its own: an empty list in a request hides nothing."""

_FIELD = "config.linux.security_context"
_LEVEL = re.compile(
    r"s\d{1,4}(-s\d{1,4})?(:c\d{1,4}([.,]c\d{1,4})*)?(-s\d{1,4}(:c\d{1,4}([.,]c\d{1,4})*)?)?\Z"
)
_LABEL_PART = re.compile(r"[A-Za-z0-9_.-]{1,255}\Z")
_PROFILE_NAME = re.compile(r"[^\x00-\x20\x7f]{1,512}\Z")


def hidden_paths(inputs: BundleInputs) -> dict[str, list[str]]:
    """maskedPaths and readonlyPaths of `linux`: the request's, then the node's; privileged have none.

    What is hidden is not named a second time: crun 1.8 hides a path that it has made read-only by a mount
    over the node's own /dev/null, which stays there where the container has a BIDIRECTIONAL mount.
    """
    security = inputs.container.security
    if security.privileged:
        return {}
    masked = [absolute_path(f"{_FIELD}.masked_paths", path) for path in security.masked_paths]
    readonly = [absolute_path(f"{_FIELD}.readonly_paths", path) for path in security.readonly_paths]
    hidden = dict.fromkeys((*masked, *inputs.defaults.masked_paths))
    shown = dict.fromkeys((*readonly, *inputs.defaults.readonly_paths))
    return {
        "maskedPaths": list(hidden),
        "readonlyPaths": [path for path in shown if path not in hidden],
    }


def check_profile(field: str, profile: SecurityProfile) -> None:
    """A `ref` belongs to LOCALHOST and to nothing else: BadInput."""
    if profile.kind is ProfileKind.LOCALHOST and not profile.ref:
        raise BadInput(f"{field}.localhost_ref: empty, with profile type Localhost")
    if profile.kind is not ProfileKind.LOCALHOST and profile.ref:
        raise BadInput(f"{field}.localhost_ref: set, with profile type {profile.kind.value}")


def seccomp_filter(inputs: BundleInputs, capabilities: frozenset[str]) -> Mapping[str, Any] | None:
    """`linux.seccomp`, or None for no filter. Raises BadInput, Unsupported where a filter cannot be had."""
    security = inputs.container.security
    profile = security.seccomp
    if profile is not None:
        check_profile(f"{_FIELD}.seccomp", profile)
    if security.privileged:
        return None
    explicit = profile is not None
    if profile is None:
        if not inputs.defaults.seccomp_when_unset:
            return None
        profile = SecurityProfile(kind=ProfileKind.RUNTIME_DEFAULT)
    if profile.kind is ProfileKind.UNCONFINED:
        return None
    if not inputs.host.seccomp or not inputs.handler.seccomp:
        if not explicit:
            return None
        who = "the kernel" if not inputs.host.seccomp else f"handler {inputs.handler.name!r}"
        raise Unsupported(
            f"{_FIELD}.seccomp: {who} has no seccomp filters, {profile.kind.value} was asked for"
        )
    if profile.kind is ProfileKind.LOCALHOST:
        if inputs.localhost_seccomp is None:
            raise BadInput(f"{_FIELD}.seccomp.localhost_ref: no profile {profile.ref[:200]!r} was read")
        return inputs.localhost_seccomp
    if inputs.defaults.seccomp_profile is not None:
        return inputs.defaults.seccomp_profile
    return seccomp.runtime_default(inputs.host.machine, capabilities, kernel=inputs.host.kernel)


def apparmor_profile(inputs: BundleInputs) -> str:
    """`process.apparmorProfile`, "" for none. Raises Unsupported where AppArmor is asked for and missing."""
    security = inputs.container.security
    profile = security.apparmor
    if profile is not None:
        check_profile(f"{_FIELD}.apparmor", profile)
    if security.privileged or (profile is not None and profile.kind is ProfileKind.UNCONFINED):
        return ""
    if not inputs.host.apparmor or not inputs.handler.apparmor:
        if profile is None:
            return ""
        who = "the kernel" if not inputs.host.apparmor else f"handler {inputs.handler.name!r}"
        raise Unsupported(f"{_FIELD}.apparmor: {who} has no AppArmor, {profile.kind.value} was asked for")
    if profile is not None and profile.kind is ProfileKind.LOCALHOST:
        name = profile.ref.removeprefix("localhost/")
        if not _PROFILE_NAME.match(name):
            raise BadInput(f"{_FIELD}.apparmor.localhost_ref: {name[:80]!r} is not the name of a profile")
        return name
    if profile is not None and not inputs.defaults.apparmor_profile:
        raise Unsupported(f"{_FIELD}.apparmor: no default profile is loaded on this machine")
    return inputs.defaults.apparmor_profile


def selinux_labels(inputs: BundleInputs) -> tuple[str, str, list[str]]:
    """The process's label, its files' label and notes; both "" where SELinux is off.

    The pod's options fill what the container's leave open; the level is the pod's unless one is asked for.
    Raises BadInput for a part that could not be one of a label.
    """
    security, pod = inputs.container.security, inputs.pod.security
    asked, below = security.selinux or SelinuxOption(), pod.selinux or SelinuxOption()
    parts = {
        "user": asked.user or below.user or "system_u",
        "role": asked.role or below.role or "system_r",
        "type": asked.type or below.type or ("spc_t" if security.privileged else "container_t"),
    }
    level = files_level(security, pod, inputs.selinux_level)
    for name, value in parts.items():
        if not _LABEL_PART.match(value):
            raise BadInput(f"{_FIELD}.selinux_options.{name}: {value[:80]!r} is not part of a label")
    if not _LEVEL.match(level):
        raise BadInput(f"{_FIELD}.selinux_options.level: {level[:80]!r} is not a level such as s0:c1,c2")
    if not inputs.host.selinux or not inputs.handler.selinux:
        explicit = security.selinux is not None and any((asked.user, asked.role, asked.type, asked.level))
        return "", "", ["SELinux options have no effect: SELinux is off here"] if explicit else []
    label = f"{parts['user']}:{parts['role']}:{parts['type']}:{level}"
    return label, file_label(level), []


def files_level(container: ContainerSecurity, pod: PodSecurity, pod_level: str) -> str:
    """The level of the files of a container: that of its process, see `selinux_labels`."""
    asked, below = container.selinux or SelinuxOption(), pod.selinux or SelinuxOption()
    return asked.level or below.level or ("s0" if container.privileged else pod_level or "s0")
