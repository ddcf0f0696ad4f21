"""What metrics are made of, read from files of both cgroup versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from oci.cgroup import CpuUsage, DeviceIo, MemoryUsage, Pressure, PressureStall
from oci.facts import CgroupDriver, CgroupFacts, HostFacts
from oci.metrics import CpuSpec, Faults, Needs, Processes, Reading
from oci.workload import ImageId
from shim import metrics
from shim.records import ContainerRecord, ContainerState
from tests import bundles

NOW = 1_700_000_000_000_000_000
RECORD = ContainerRecord(
    id=bundles.CONTAINER_ID,
    pod_id=bundles.POD_ID,
    realm="kubelet",
    spec=bundles.container(),
    state=ContainerState.RUNNING,
    created_at=1,
    handler="runc",
    image_id=ImageId("sha256:" + "a" * 64),
    cgroup="/pod/c",
    started_at=5,
)
DEVICE = DeviceIo(major=0, minor=999, values={"rbytes": 1, "wbytes": 2, "rios": 3, "wios": 4})
CONTROLLERS_1 = ("cpu", "cpuacct", "memory", "pids", "blkio", "hugetlb")
CONTROLLERS_2 = ("cpu", "memory", "pids", "io", "hugetlb")


@pytest.fixture(autouse=True)
def still_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics.time, "time_ns", lambda: NOW)


def host(version: int, mounts: dict[str, str], **changed: Any) -> HostFacts:
    facts = CgroupFacts(version=version, driver=CgroupDriver.CGROUPFS, mounts=mounts)
    return bundles.host(cgroup=facts, hugepage_sizes=("2MB",), swap_accounting=True, **changed)


def write(directory: Path, **files: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / name.replace("__", ".")).write_text(content)


def test_version_2(tmp_path: Path) -> None:
    line = "avg10=0.00 avg60=0.00 avg300=0.00 total=7"
    write(
        tmp_path / "pod/c",
        cpu__stat="usage_usec 5\nuser_usec 3\nsystem_usec 2\n"
        "nr_periods 9\nnr_throttled 1\nthrottled_usec 4\n",
        cpu__max="20000 100000\n",
        cpu__weight="39\n",
        memory__current="100\n",
        memory__stat="anon 30\nfile 20\ninactive_file 10\nfile_mapped 5\nkernel 6\npgfault 7\npgmajfault 8\n",
        memory__max="200\n",
        memory__peak="150\n",
        memory__low="0\n",
        memory__events="oom 3\noom_kill 2\n",
        memory__swap__current="11\n",
        memory__swap__max="50\n",
        pids__current="4\n",
        pids__max="max\n",
        cgroup__procs="",
        io__stat="0:999 rbytes=1 wbytes=2 rios=3 wios=4\n",
        hugetlb__2MB__current="12\n",
        io__pressure=f"some {line}\nfull {line}\n",
    )
    stall = Pressure(total=7000)
    assert metrics.read(RECORD, host(2, dict.fromkeys(CONTROLLERS_2, str(tmp_path))), None) == Reading(
        time=NOW,
        started_at=5,
        cpu=CpuUsage(
            total=5000, user=3000, system=2000, periods=9, throttled_periods=1, throttled=4000
        ),
        cpu_spec=CpuSpec(period=100_000, shares=998, quota=20_000),
        memory=MemoryUsage(
            usage=100, working_set=90, rss=30, cache=20, mapped_file=5, kernel=6, page_faults=7,
            major_page_faults=8, limit=200, peak=150,
        ),
        memory_reservation=0,
        faults=Faults(own=7, own_major=8, all=7, all_major=8),
        oom_kills=2,
        swap=11,
        swap_limit=250,
        processes=Processes(count=0, threads=4, threads_limit=None, descriptors=0, sockets=0),
        io=(("0:999", DEVICE),),
        hugepages={"2MB": (12, 12)},
        pressure={"io": PressureStall(some=stall, full=stall)},
    )  # fmt: skip


def test_version_1(tmp_path: Path) -> None:
    for controller in CONTROLLERS_1:
        (tmp_path / controller / "pod/c").mkdir(parents=True)
    write(
        tmp_path / "cpuacct/pod/c", cpuacct__usage="9\n", cpuacct__usage_user="6\n", cpuacct__usage_sys="3\n"
    )
    write(
        tmp_path / "cpu/pod/c",
        cpu__stat="nr_periods 1\nnr_throttled 2\nthrottled_time 3\n",
        cpu__cfs_period_us="100000\n",
        cpu__cfs_quota_us="-1\n",
        cpu__shares="2\n",
    )
    write(
        tmp_path / "memory/pod/c",
        memory__usage_in_bytes="100\n",
        memory__stat="pgfault 1\npgmajfault 2\ntotal_pgfault 3\ntotal_pgmajfault 4\n",
        memory__limit_in_bytes="9223372036854771712\n",
        memory__max_usage_in_bytes="110\n",
        memory__failcnt="5\n",
        memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 6\n",
        memory__soft_limit_in_bytes="9223372036854771712\n",
        memory__memsw__usage_in_bytes="120\n",
        memory__memsw__limit_in_bytes="9223372036854771712\n",
    )
    read = metrics.read(RECORD, host(1, {name: str(tmp_path / name) for name in CONTROLLERS_1}), None)
    assert read == Reading(
        time=NOW,
        started_at=5,
        cpu=CpuUsage(total=9, user=6, system=3, periods=1, throttled_periods=2, throttled=3),
        cpu_spec=CpuSpec(period=100_000, shares=2),
        memory=MemoryUsage(
            usage=100, working_set=100, page_faults=3, major_page_faults=4, peak=110, failures=5
        ),
        memory_reservation=0,
        faults=Faults(own=1, own_major=2, all=3, all_major=4),
        oom_kills=6,
        swap=20,
        swap_limit=0,
    )


@pytest.mark.parametrize(("version", "controllers"), [(1, CONTROLLERS_1), (2, CONTROLLERS_2)])
def test_what_is_gone_is_none(tmp_path: Path, version: int, controllers: tuple[str, ...]) -> None:
    read = metrics.read(RECORD, host(version, dict.fromkeys(controllers, str(tmp_path))), None)
    assert read == Reading(time=NOW, started_at=5)


def test_what_the_machine_can_tell_decides_what_is_described() -> None:
    everything = {Needs.CPU, Needs.MEMORY, Needs.PIDS, Needs.IO, Needs.PEAK, Needs.SWAP, Needs.HUGEPAGES}
    assert metrics.available(host(1, dict.fromkeys(CONTROLLERS_1, "/cg"))) == everything
    old = metrics.available(host(2, dict.fromkeys(CONTROLLERS_2, "/cg"), kernel=(5, 15, 0)))
    assert old - {Needs.PRESSURE} == everything - {Needs.PEAK}
    assert metrics.available(host(1, {})) == frozenset()
