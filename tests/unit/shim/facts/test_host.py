"""Host facts from made-up proc, sys and dev trees: machines that this one is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from oci.bundle.capabilities import KNOWN
from oci.facts import CgroupDriver, CgroupFacts
from shim.facts.host import cgroup_facts, gather, kernel_version

ALL = f"{(1 << 41) - 1:016x}"
NO_RESOURCE = f"{((1 << 41) - 1) & ~(1 << 24):016x}"


class Machine:
    """A proc and a sys tree to be filled."""

    def __init__(self, directory: Path) -> None:
        self.proc, self.sys, self.dev = directory / "proc", directory / "sys", directory / "dev"
        self.dev.mkdir(parents=True)
        self.write("proc/self/status", f"Name:\tx\nCapPrm:\t{ALL}\nCapBnd:\t{ALL}\n")
        self.write("proc/self/uid_map", "         0          0 4294967295\n")
        self.write("proc/self/oom_score_adj", "0\n")
        self.write("proc/self/cgroup", "0::/system.slice/crispd.service\n")
        self.write("proc/1/comm", "systemd\n")
        self.write(
            "proc/cgroups",
            "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t2\t1\ncpuacct\t1\t2\t1\nmemory\t2\t2\t1\n",
        )

    def write(self, path: str, content: str) -> Path:
        file = self.proc.parent / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        return file

    def mount(self, *lines: str) -> None:
        shown = (
            f"{30 + n} 1 0:{n} / {target} rw,relatime shared:{n} - {kind} {kind} {options}\n"
            for n, (target, kind, options) in enumerate(line.split() for line in lines)
        )
        self.write("proc/self/mountinfo", "".join(shown))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("release", "version"),
    [("6.12.9-amd64", (6, 12, 9)), ("6.1", (6, 1, 0)), ("5.10.0-28-cloud", (5, 10, 0)), ("", (0, 0, 0))],
)
def test_a_release_begins_with_the_version(release: str, version: tuple[int, int, int]) -> None:
    assert kernel_version(release) == version


def test_a_unified_machine_under_systemd_is_version_2_with_slices(machine: Machine, tmp_path: Path) -> None:
    machine.write("cg/cgroup.controllers", "cpu memory pids\n")
    top = str(tmp_path / "cg")
    machine.mount(f"{top} cgroup2 rw")
    assert cgroup_facts(driver=None, proc=machine.proc) == CgroupFacts(
        version=2,
        driver=CgroupDriver.SYSTEMD,
        mounts={"cpu": top, "memory": top, "pids": top},
        own_path="/system.slice/crispd.service",
    )


def test_the_driver_can_be_set_and_is_paths_without_systemd(machine: Machine) -> None:
    machine.mount("/cg cgroup2 rw")
    assert cgroup_facts(driver=CgroupDriver.CGROUPFS, proc=machine.proc).driver is CgroupDriver.CGROUPFS
    machine.write("proc/1/comm", "init\n")
    assert cgroup_facts(driver=None, proc=machine.proc).driver is CgroupDriver.CGROUPFS
    assert cgroup_facts(driver=CgroupDriver.SYSTEMD, proc=machine.proc).driver is CgroupDriver.SYSTEMD


def test_a_hybrid_with_controllers_on_version_1_is_version_1(machine: Machine) -> None:
    machine.mount("/cg/cpu cgroup rw,cpu,cpuacct", "/cg/memory cgroup rw,memory", "/cg/unified cgroup2 rw")
    machine.write("proc/self/cgroup", "2:memory:/own\n1:cpu,cpuacct:/x\n0::/u\n")
    assert cgroup_facts(driver=None, proc=machine.proc) == CgroupFacts(
        version=1,
        driver=CgroupDriver.CGROUPFS,
        mounts={"cpu": "/cg/cpu", "cpuacct": "/cg/cpu", "memory": "/cg/memory"},
        own_path="/own",
    )


def test_a_named_hierarchy_alone_does_not_make_version_1(machine: Machine) -> None:
    machine.mount("/cg/systemd cgroup rw,xattr,name=systemd", "/cg/unified cgroup2 rw")
    assert cgroup_facts(driver=None, proc=machine.proc).version == 2


def test_a_daemon_without_the_capability_can_only_raise_its_own_score(machine: Machine) -> None:
    machine.mount("/cg cgroup2 rw")
    strong = gather(proc=machine.proc, sys=machine.sys, dev=machine.dev)
    machine.write("proc/self/status", f"CapPrm:\t{NO_RESOURCE}\nCapBnd:\t{ALL}\n")
    machine.write("proc/self/oom_score_adj", "-500\n")
    weak = gather(proc=machine.proc, sys=machine.sys, dev=machine.dev)
    assert (strong.lowest_oom_score_adj, strong.capabilities) == (-1000, frozenset(KNOWN))
    assert (weak.lowest_oom_score_adj, weak.bounding - weak.capabilities) == (-500, {"CAP_SYS_RESOURCE"})


def test_a_capability_of_a_nested_user_namespace_does_not_lower_the_score(machine: Machine) -> None:
    machine.mount("/cg cgroup2 rw")
    machine.write("proc/self/uid_map", "0 100000 65536\n")
    assert gather(proc=machine.proc, sys=machine.sys, dev=machine.dev).lowest_oom_score_adj == 0


def test_security_modules_are_seen_where_they_are_on(machine: Machine) -> None:
    machine.mount("/cg cgroup2 rw")
    facts = gather(proc=machine.proc, sys=machine.sys, dev=machine.dev)
    assert (facts.apparmor, facts.selinux, facts.seccomp) == (False, False, False)
    machine.write("sys/module/apparmor/parameters/enabled", "Y\n")
    machine.write("sys/kernel/security/apparmor/profiles", "")
    machine.write("sys/fs/selinux/enforce", "0")
    machine.write("proc/sys/kernel/seccomp/actions_avail", "kill errno\n")
    facts = gather(proc=machine.proc, sys=machine.sys, dev=machine.dev)
    assert (facts.apparmor, facts.selinux, facts.seccomp) == (True, True, True)


def test_page_sizes_are_named_as_runtimes_write_them(machine: Machine) -> None:
    machine.mount("/cg cgroup2 rw")
    for size in (64, 2048, 1048576, 32768):
        machine.write(f"sys/kernel/mm/hugepages/hugepages-{size}kB/nr_hugepages", "0")
    facts = gather(proc=machine.proc, sys=machine.sys, dev=machine.dev)
    assert facts.hugepage_sizes == ("64KB", "2MB", "32MB", "1GB")


@pytest.mark.parametrize("where", ["cg/system.slice/crispd.service", "cg/other.slice"])
def test_swap_accounting_is_seen_in_a_group_below_the_root(
    machine: Machine, tmp_path: Path, where: str
) -> None:
    machine.write("cg/cgroup.controllers", "memory\n")
    machine.mount(f"{tmp_path / 'cg'} cgroup2 rw")
    assert not gather(proc=machine.proc, sys=machine.sys, dev=machine.dev).swap_accounting
    machine.write(f"{where}/memory.swap.max", "max\n")
    assert gather(proc=machine.proc, sys=machine.sys, dev=machine.dev).swap_accounting


def test_swap_accounting_of_version_1_is_a_file_of_the_root(machine: Machine, tmp_path: Path) -> None:
    machine.mount(f"{tmp_path / 'mem'} cgroup rw,memory")
    assert not gather(proc=machine.proc, sys=machine.sys, dev=machine.dev).swap_accounting
    machine.write("mem/memory.memsw.limit_in_bytes", "1")
    assert gather(proc=machine.proc, sys=machine.sys, dev=machine.dev).swap_accounting


def test_only_nodes_count_as_devices(machine: Machine) -> None:
    machine.mount("/cg cgroup2 rw")
    os.mkfifo(machine.dev / "initctl")
    (machine.dev / "null").symlink_to("/dev/null")
    (machine.dev / "file").write_text("")
    assert gather(proc=machine.proc, sys=machine.sys, dev=machine.dev).devices == ()


def test_a_machine_without_anything_mounted_is_told_as_such(machine: Machine) -> None:
    facts = gather(proc=machine.proc, sys=machine.sys, dev=machine.dev)
    assert facts.cgroup == CgroupFacts(version=1, driver=CgroupDriver.CGROUPFS, mounts={})
