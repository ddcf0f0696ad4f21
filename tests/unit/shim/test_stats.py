"""Usage read from cgroup files and directories; what is missing is None, never an error."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from oci.facts import CgroupDriver, CgroupFacts, HostFacts
from oci.workload import ImageId
from shim import stats
from shim.records import ContainerRecord, ContainerState
from shim.stats import (
    CpuUse,
    FilesystemUse,
    IoUse,
    MemoryUse,
    Pressure,
    PressureLine,
    SwapUse,
    read_container,
    read_layer,
    read_processes,
)
from tests import bundles

LINE = "avg10=1.00 avg60=2.00 avg300=3.00 total=4"
PRESSURE = f"some {LINE}\nfull {LINE}\n"
STALL = PressureLine(total=4000, avg10=1.0, avg60=2.0, avg300=3.0)
NOW = 1_700_000_000_000_000_000


@pytest.fixture(autouse=True)
def still_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats.time, "time_ns", lambda: NOW)


def record(**changed: Any) -> ContainerRecord:
    members: dict[str, Any] = {
        "id": bundles.CONTAINER_ID,
        "pod_id": bundles.POD_ID,
        "realm": "kubelet",
        "spec": bundles.container(),
        "state": ContainerState.RUNNING,
        "created_at": 1,
        "handler": "runc",
        "image_id": ImageId("sha256:" + "a" * 64),
        "cgroup": "/pod/c",
    }
    return ContainerRecord(**{**members, **changed})


def write(directory: Path, **files: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / name.replace("__", ".")).write_text(content)


def unified(tmp_path: Path) -> HostFacts:
    top = str(tmp_path / "cg")
    facts = CgroupFacts(
        version=2, driver=CgroupDriver.SYSTEMD, mounts=dict.fromkeys(("cpu", "memory", "io", "pids"), top)
    )
    return bundles.host(cgroup=facts)


def legacy(tmp_path: Path) -> HostFacts:
    mounts = {name: str(tmp_path / name) for name in ("cpuacct", "memory", "pids")}
    return bundles.host(cgroup=CgroupFacts(version=1, driver=CgroupDriver.CGROUPFS, mounts=mounts))


def test_a_running_container_on_version_2_has_every_part(tmp_path: Path) -> None:
    write(
        tmp_path / "cg/pod/c",
        cpu__stat="usage_usec 5\n",
        cpu__pressure=PRESSURE,
        memory__current="1000\n",
        memory__stat="anon 300\ninactive_file 400\npgfault 7\npgmajfault 2\n",
        memory__max="2000\n",
        memory__swap__current="10\n",
        memory__swap__max="30\n",
        memory__pressure=PRESSURE,
        io__pressure=PRESSURE,
    )
    used = read_container(record(), unified(tmp_path))
    stall = Pressure(full=STALL, some=STALL)
    assert used == stats.ContainerUsage(
        id=bundles.CONTAINER_ID,
        cpu=CpuUse(timestamp=NOW, usage_core_nano_seconds=5000, pressure=stall),
        memory=MemoryUse(
            timestamp=NOW, working_set=600, available=1400, usage=1000, rss=300, page_faults=7,
            major_page_faults=2, pressure=stall,
        ),
        swap=SwapUse(timestamp=NOW, available=20, usage=10),
        io=IoUse(timestamp=NOW, pressure=stall),
    )  # fmt: skip


def test_a_running_container_on_version_1_has_no_pressure(tmp_path: Path) -> None:
    write(tmp_path / "cpuacct/pod/c", cpuacct__usage="77\n")
    write(
        tmp_path / "memory/pod/c",
        memory__usage_in_bytes="1000\n",
        memory__stat="total_rss 300\ntotal_inactive_file 400\n",
        memory__limit_in_bytes="9223372036854771712\n",
        memory__memsw__usage_in_bytes="1200\n",
        memory__memsw__limit_in_bytes="9223372036854771712\n",
    )
    used = read_container(record(), legacy(tmp_path))
    assert used == stats.ContainerUsage(
        id=bundles.CONTAINER_ID,
        cpu=CpuUse(timestamp=NOW, usage_core_nano_seconds=77),
        memory=MemoryUse(
            timestamp=NOW, working_set=600, usage=1000, rss=300, page_faults=0, major_page_faults=0
        ),
        swap=SwapUse(timestamp=NOW, usage=200),
    )


@pytest.mark.parametrize(
    "changed", [{"state": ContainerState.EXITED}, {"cgroup": ""}, {"cgroup": "/gone/meanwhile"}]
)
@pytest.mark.parametrize("machine", [unified, legacy])
def test_what_is_not_there_is_none(tmp_path: Path, changed: dict[str, Any], machine: Any) -> None:
    write(tmp_path / "cg/pod/c", cpu__stat="usage_usec 5\n", memory__current="1\n")
    write(tmp_path / "cpuacct/pod/c", cpuacct__usage="77\n")
    used = read_container(record(**changed), machine(tmp_path))
    assert used == stats.ContainerUsage(id=bundles.CONTAINER_ID)


@pytest.mark.parametrize(("machine", "top"), [(unified, "cg"), (legacy, "pids")])
def test_processes_are_counted_in_the_whole_tree(tmp_path: Path, machine: Any, top: str) -> None:
    write(tmp_path / top / "pod", cgroup__procs="")
    write(tmp_path / top / "pod/c", cgroup__procs="1\n2\n")
    write(tmp_path / top / "pod/c/below", cgroup__procs="3\n")
    assert read_processes("/pod", machine(tmp_path)) == stats.ProcessUse(timestamp=NOW, count=3)
    assert read_processes("/gone", machine(tmp_path)) is None


def test_a_layer_counts_each_inode_once_and_follows_no_link(tmp_path: Path) -> None:
    upper = tmp_path / "upper"
    (upper / "d").mkdir(parents=True)
    (upper / "d/file").write_bytes(b"x" * 100_000)
    os.link(upper / "d/file", upper / "again")
    (upper / "link").symlink_to("/usr")
    os.truncate(upper / "again", 200_000)
    sparse = upper / "sparse"
    sparse.touch()
    os.truncate(sparse, 1 << 30)
    blocks = sum(
        path.lstat().st_blocks for path in (upper, upper / "d", upper / "d/file", upper / "link", sparse)
    )
    assert read_layer(upper, mountpoint=tmp_path) == FilesystemUse(
        timestamp=NOW, mountpoint=str(tmp_path), used_bytes=blocks * 512, inodes_used=5
    )


def test_a_layer_with_too_many_entries_is_not_half_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats, "_MOST_ENTRIES", 3)
    for name in "abc":
        (tmp_path / name).touch()
    assert read_layer(tmp_path, mountpoint=tmp_path) is None
