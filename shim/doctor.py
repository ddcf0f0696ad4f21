"""`crisp doctor`: what of the machine Crisp needs, what is there, and what to do about the rest.

Looks, changes nothing. Each check is one line with a verdict; advice says what a person can do.
"""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from config.models import ImageSettings
from oci.facts import HostFacts
from oci.registries.checking import mistakes
from oci.workload import PodId
from shim import process
from shim.images.additional import AdditionalStore
from shim.images.registry_files import places_of, read_files
from shim.kernel import probe
from shim.node import Node
from shim.runtimes.table import HandlerTable

_CONTROLLERS = ("cpu", "cpuset", "memory", "pids")
_OPTIONAL_CONTROLLERS = ("hugetlb", "io")
_CAPABILITIES = {
    "CAP_SYS_ADMIN": "mounts and namespaces cannot be made",
    "CAP_NET_ADMIN": "pod networks cannot be set up",
    "CAP_MKNOD": "devices cannot be made in containers",
    "CAP_SYS_PTRACE": "namespaces of containers cannot be entered",
    "CAP_KILL": "containers of other users cannot be stopped",
    "CAP_CHOWN": "files of images cannot get their owners",
}


class Verdict(Enum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line: what was looked at, what was found, and what to do unless it is well."""

    area: str
    name: str
    verdict: Verdict
    found: str
    advice: str = ""


async def examine(node: Node, table: HandlerTable) -> list[Check]:
    """Every check, by area. Never raises for what it finds."""
    ready, reason, message = node.network.condition()
    network = Check(
        area="network",
        name="CNI",
        verdict=Verdict.OK if ready else Verdict.PROBLEM,
        found=message or reason or "ready",
        advice=""
        if ready
        else f"put a configuration into {node.settings.network.conf_dir} or set network.builtin = true",
    )
    machine = await asyncio.to_thread(_machine, node.host, node.paths.images)
    state = [
        Check(
            area="state", name="store", verdict=Verdict.WARNING, found=finding, advice="see the daemon's log"
        )
        for finding in node.store.findings
    ]
    faults = [(pod.id, pod.fault) for pod in node.store.pods.values() if pod.fault]
    faults += [(PodId(c.id), c.fault) for c in node.store.containers.values() if c.fault]
    owed = [
        Check(area="state", name=id_[:12], verdict=Verdict.WARNING, found=f"owed: {fault}")
        for id_, fault in faults
    ]
    registries = await asyncio.to_thread(_registries, node.settings.images)
    await node.images.look_at_additional()
    stores = [_store(store) for store in node.images.additional]
    return [*machine, *_handlers(table), network, *registries, *stores, *state, *owed]


def _store(store: AdditionalStore) -> Check:
    there = f"{len(store.images)} images, {len(store.layers)} layers"
    return Check(
        area="images",
        name=f"additional store {store.directory}",
        verdict=Verdict.WARNING if store.problem else Verdict.OK,
        found=f"{store.problem}; usable: {there}" if store.problem else there,
        advice="what is not usable is pulled from its registry instead" if store.problem else "",
    )


def _registries(images: ImageSettings) -> list[Check]:
    """Whether the files about registries are right, also those that no pull has met yet."""
    found = mistakes(read_files(places_of(images), ""))
    if not found:
        return [Check(area="images", name="registries", verdict=Verdict.OK, found="no mistake in any file")]
    return [
        Check(
            area="images",
            name="registries",
            verdict=Verdict.WARNING,
            found=mistake,
            advice="pulls that need this file are refused: correct it, no restart is needed",
        )
        for mistake in found
    ]


def _machine(host: HostFacts, images: Path) -> list[Check]:
    checks = [
        Check(
            area="kernel",
            name="version",
            verdict=Verdict.OK if host.kernel >= (5, 8, 0) else Verdict.PROBLEM,
            found=".".join(map(str, host.kernel)),
            advice="" if host.kernel >= (5, 8, 0) else "Crisp needs 5.8 or later (openat2, pidfd)",
        ),
        Check(
            area="kernel",
            name="layers",
            verdict=Verdict.OK,
            found="mounted as EROFS files"
            if probe.can_mount_erofs_from_file(images)
            else "unpacked into directories",
        ),
        _choice("seccomp", host.seccomp, "containers run without system call filters"),
        _choice("AppArmor", host.apparmor, "AppArmor profiles are refused", optional=True),
        _choice("SELinux", host.selinux, "SELinux labels are not set", optional=True),
        Check(
            area="cgroups",
            name="version",
            verdict=Verdict.OK,
            found=f"{host.cgroup.version}, driver {host.cgroup.driver.value}",
        ),
    ]
    for name in (*_CONTROLLERS, *_OPTIONAL_CONTROLLERS):
        # Version 1 calls block IO by another name.
        there = host.cgroup.has(name) or (name == "io" and host.cgroup.has("blkio"))
        needed = name in _CONTROLLERS
        checks.append(
            Check(
                area="cgroups",
                name=name,
                verdict=Verdict.OK if there else Verdict.PROBLEM if needed else Verdict.WARNING,
                found="there" if there else "missing",
                advice="" if there else f"enable the {name} controller, its limits are not applied",
            )
        )
    for name, consequence in _CAPABILITIES.items():
        held = name in host.capabilities
        checks.append(
            Check(
                area="capabilities",
                name=name,
                verdict=Verdict.OK if held else Verdict.PROBLEM,
                found="held" if held else "missing",
                advice="" if held else consequence,
            )
        )
    raised = host.can_raise_limits()
    checks.append(
        Check(
            area="capabilities",
            name="CAP_SYS_RESOURCE",
            verdict=Verdict.OK if raised else Verdict.WARNING,
            found="held" if raised else "missing",
            advice=""
            if raised
            else "OOM scores and hard limits of containers are bounded by the daemon's own",
        )
    )
    for name, package in (("conmon", "conmon"), ("catatonit", "catatonit"), ("iptables", "iptables")):
        path = shutil.which(name, path=process.PATH)
        checks.append(
            Check(
                area="binaries",
                name=name,
                verdict=Verdict.OK if path else Verdict.PROBLEM if name == "conmon" else Verdict.WARNING,
                found=path or "not on PATH",
                advice="" if path else f"install the package {package}",
            )
        )
    return checks


def _choice(name: str, there: bool, consequence: str, *, optional: bool = False) -> Check:
    return Check(
        area="kernel",
        name=name,
        verdict=Verdict.OK if there or optional else Verdict.WARNING,
        found="there" if there else "not in this kernel",
        advice="" if there else consequence,
    )


def _handlers(table: HandlerTable) -> list[Check]:
    checks = [
        Check(
            area="handlers",
            name=handler.name,
            verdict=Verdict.OK,
            found=f"{handler.binary} {handler.version.version}, {handler.source}"
            + (", default" if handler.name == table.default else ""),
        )
        for handler in table.handlers.values()
    ]
    checks += [
        Check(
            area="handlers",
            name=broken.name,
            verdict=Verdict.PROBLEM,
            found=broken.reason,
            advice=broken.source,
        )
        for broken in table.invalid.values()
    ]
    if not table.default:
        checks.append(
            Check(
                area="handlers",
                name="default",
                verdict=Verdict.PROBLEM,
                found="no handler is usable",
                advice="install runc or crun, and conmon",
            )
        )
    return checks
