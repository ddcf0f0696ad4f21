"""The machine and the daemon's own means, gathered once at start into `HostFacts`.

Blocking, and bounded: only proc, sys and the names below /dev are read. The roots are parameters, so that
tests can show it machines that this one is not.
"""

from __future__ import annotations

import os
import re
import resource
import stat
from collections.abc import Mapping
from pathlib import Path

from oci.bundle.capabilities import from_mask
from oci.cgroup import own_paths
from oci.facts import CgroupDriver, CgroupFacts, DeviceNode, HostFacts
from shim.facts.reading import text
from shim.kernel.mountinfo import Mount, parse_mountinfo

_NOT_DEVICES = frozenset(("pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "hugepages"))
_MOST_DEVICES = 16384
_HUGEPAGES = re.compile(r"hugepages-(\d+)kB\Z")


def gather(
    *,
    driver: CgroupDriver | None = None,
    proc: Path = Path("/proc"),
    sys: Path = Path("/sys"),
    dev: Path = Path("/dev"),
) -> HostFacts:
    """Look at everything. `driver` overrides the detection of the cgroup driver. Blocking."""
    name = os.uname()
    status = _status(proc)
    bounding = from_mask(int(status.get("CapBnd", "0"), 16))
    capabilities = bounding & from_mask(int(status.get("CapPrm", "0"), 16))
    cgroup = cgroup_facts(driver=driver, proc=proc)
    return HostFacts(
        hostname=name.nodename,
        kernel=kernel_version(name.release),
        machine=name.machine,
        cgroup=cgroup,
        capabilities=capabilities,
        bounding=bounding,
        rlimits=_rlimits(),
        lowest_oom_score_adj=_lowest_oom_score_adj(proc, capabilities),
        apparmor=_apparmor(sys),
        selinux=text(sys / "fs/selinux/enforce") is not None,
        seccomp=text(proc / "sys/kernel/seccomp/actions_avail") is not None,
        swap_accounting=_swap_accounting(cgroup),
        hugepage_sizes=_hugepage_sizes(sys),
        devices=device_nodes(dev),
    )


def kernel_version(release: str) -> tuple[int, int, int]:
    """The numbers that a release ("6.12.9-amd64", "6.1") begins with; missing ones are 0."""
    numbers = [int(number) for number in re.findall(r"\d+", release.split("-", 1)[0])[:3]]
    major, minor, patch = (*numbers, 0, 0, 0)[:3]
    return major, minor, patch


def cgroup_facts(*, driver: CgroupDriver | None, proc: Path) -> CgroupFacts:
    """Hierarchies, version and driver, from mountinfo and the daemon's own cgroup."""
    mounts = parse_mountinfo((text(proc / "self/mountinfo") or "").encode("utf-8", "surrogateescape"))
    own = own_paths(text(proc / "self/cgroup") or "")
    legacy = _legacy_controllers(mounts, proc)
    unified = next((mount.target for mount in mounts if mount.type == "cgroup2"), "")
    if legacy or not unified:
        chosen = driver or CgroupDriver.CGROUPFS
        return CgroupFacts(version=1, driver=chosen, mounts=legacy, own_path=own.get("memory", "/"))
    controllers = (text(Path(unified) / "cgroup.controllers") or "").split()
    return CgroupFacts(
        version=2,
        driver=driver or (CgroupDriver.SYSTEMD if _systemd(proc) else CgroupDriver.CGROUPFS),
        mounts=dict.fromkeys(controllers, unified),
        own_path=own.get("", "/"),
    )


def _legacy_controllers(mounts: tuple[Mount, ...], proc: Path) -> dict[str, str]:
    """Version 1 mounts by controller. Named hierarchies (name=systemd) carry no controller."""
    table = text(proc / "cgroups") or ""
    known = {line.split()[0] for line in table.splitlines() if line and not line.startswith("#")}
    found: dict[str, str] = {}
    for mount in mounts:
        if mount.type == "cgroup":
            for option in mount.super_options:
                if option in known:
                    found.setdefault(option, mount.target)
    return found


def _systemd(proc: Path) -> bool:
    return (text(proc / "1/comm") or "").strip() == "systemd"


def _status(proc: Path) -> Mapping[str, str]:
    lines = (line.partition(":") for line in (text(proc / "self/status") or "").splitlines())
    return {name: value.strip() for name, _, value in lines}


def _rlimits() -> dict[str, int]:
    """Hard limits; Python's RLIM_INFINITY is -1, which is how the facts say unlimited."""
    names = [name for name in dir(resource) if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"]
    return {name: resource.getrlimit(getattr(resource, name))[1] for name in names}


def _lowest_oom_score_adj(proc: Path, capabilities: frozenset[str]) -> int:
    """-1000 with CAP_SYS_RESOURCE of the first user namespace, else the daemon's own score.

    The kernel (fs/proc/base.c, __set_oom_adj) asks for the capability in the first namespace, so one that is
    held in a nested user namespace does not count.
    """
    own = int((text(proc / "self/oom_score_adj") or "0").strip() or 0)
    mapped = (text(proc / "self/uid_map") or "0 0 4294967295").split()
    return -1000 if "CAP_SYS_RESOURCE" in capabilities and mapped == ["0", "0", "4294967295"] else own


def _apparmor(sys: Path) -> bool:
    enabled = (text(sys / "module/apparmor/parameters/enabled") or "").startswith("Y")
    return enabled and (sys / "kernel/security/apparmor").is_dir()


def _swap_accounting(cgroup: CgroupFacts) -> bool:
    mount = cgroup.mounts.get("memory")
    if mount is None:
        return False
    if cgroup.version == 1:
        return (Path(mount) / "memory.memsw.limit_in_bytes").exists()
    # The root group has no limits: look in the daemon's own group, else in any below the root.
    own = Path(mount) / cgroup.own_path.lstrip("/")
    if (own / "memory.swap.max").exists():
        return True
    return any((child / "memory.swap.max").exists() for child in _children(Path(mount)))


def _children(directory: Path) -> list[Path]:
    try:
        with os.scandir(directory) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _hugepage_sizes(sys: Path) -> tuple[str, ...]:
    """Page sizes as CRI and the runtimes write them: "64KB", "2MB", "1GB"."""
    found = []
    for directory in _children(sys / "kernel/mm/hugepages"):
        if match := _HUGEPAGES.match(directory.name):
            found.append(int(match[1]))
    return tuple(_page_size(kilobytes) for kilobytes in sorted(found))


def _page_size(kilobytes: int) -> str:
    size, units = kilobytes, ["KB", "MB", "GB"]
    while size >= 1024 and size % 1024 == 0 and len(units) > 1:
        size //= 1024
        units.pop(0)
    return f"{size}{units[0]}"


def device_nodes(dev: Path = Path("/dev")) -> tuple[DeviceNode, ...]:
    """Every device node below `dev`, sorted, without what a container gets of its own (pts, shm, console)."""
    found: list[DeviceNode] = []
    pending = [str(dev)]
    while pending and len(found) < _MOST_DEVICES:
        try:
            entries = sorted(os.scandir(pending.pop()), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in _NOT_DEVICES:
                        pending.append(entry.path)
                elif entry.name != "console" and (node := device_node(entry.path)) is not None:
                    found.append(node)
            except OSError:
                continue  # gone between listing and looking
    return tuple(sorted(found, key=lambda node: node.path))


def device_node(path: str) -> DeviceNode | None:
    """The node at `path` itself, links not followed; None for anything else. Raises OSError."""
    seen = os.stat(path, follow_symlinks=False)  # noqa: PTH116 -- one call on a string, for thousands of names
    if stat.S_ISCHR(seen.st_mode):
        kind = "c"
    elif stat.S_ISBLK(seen.st_mode):
        kind = "b"
    else:
        return None
    return DeviceNode(
        path=path,
        kind=kind,
        major=os.major(seen.st_rdev),
        minor=os.minor(seen.st_rdev),
        mode=stat.S_IMODE(seen.st_mode),
        uid=seen.st_uid,
        gid=seen.st_gid,
    )
