"""Hierarchies and cgroup files, on directories that look like the kernel's."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from oci.errors import BadInput
from shim.cgroups import Cgroups, Hierarchies, find_hierarchies
from shim.kernel.mountinfo import parse_mountinfo

HYBRID = b"""\
30 24 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
34 30 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
35 30 0:31 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
"""
UNIFIED = b"31 30 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"


def test_a_hybrid_machine_has_its_controllers_on_version_1() -> None:
    found = find_hierarchies(parse_mountinfo(HYBRID))
    top = Path("/sys/fs/cgroup")
    assert found == Hierarchies(
        v1=(
            ("name=systemd", top / "systemd"),
            ("cpu", top / "cpu,cpuacct"),
            ("cpuacct", top / "cpu,cpuacct"),
            ("memory", top / "memory"),
            ("pids", top / "pids"),
        ),
        v2=top / "unified",
    )
    assert found.roots() == (
        top / "systemd",
        top / "cpu,cpuacct",
        top / "memory",
        top / "pids",
        top / "unified",
    )
    assert (found.unified, found.listing(), found.of("memory"), found.of("io")) == (
        False, top / "pids", top / "memory", None
    )  # fmt: skip


def test_on_version_2_everything_is_in_one_place() -> None:
    found = find_hierarchies(parse_mountinfo(UNIFIED))
    top = Path("/sys/fs/cgroup")
    assert found == Hierarchies(v2=top)
    assert (found.unified, found.roots(), found.listing(), found.of("memory")) == (True, (top,), top, top)


@pytest.fixture
def unified(tmp_path: Path) -> Cgroups:
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    return Cgroups(Hierarchies(v2=tmp_path))


@pytest.fixture
def split(tmp_path: Path) -> Cgroups:
    for name in ("cpuset", "memory", "pids"):
        (tmp_path / name).mkdir()
    return Cgroups(Hierarchies(v1=tuple((name, tmp_path / name) for name in ("cpuset", "memory", "pids"))))


def test_processes_are_listed_with_those_below(unified: Cgroups, tmp_path: Path) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "a/cgroup.procs").write_text("12\n0\n7\n")
    (tmp_path / "a/b/cgroup.procs").write_text("")
    (tmp_path / "a/b/c/cgroup.procs").write_text("99\n")
    assert unified.processes("/a") == [12, 7, 99]
    assert unified.processes("/none") == []


@pytest.mark.parametrize("path", ["", "/", "/a/../b", "/a/./b", "..", "/a//b"])
def test_the_root_and_ways_out_are_refused(unified: Cgroups, path: str) -> None:
    for act in (unified.processes, unified.remove, unified.make):
        with pytest.raises(BadInput, match="not the path of a cgroup below the root"):
            act(path)
    with pytest.raises(BadInput):
        asyncio.run(unified.kill_everything(path, timeout=1))


def test_oom_kills_are_counted_by_each_version(unified: Cgroups, split: Cgroups, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert unified.oom_kills("/a") is None
    (tmp_path / "a/memory.events").write_text("low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\noom_group_kill 0\n")
    assert unified.oom_kills("/a") == 1
    (tmp_path / "memory/a").mkdir()
    (tmp_path / "memory/a/memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n")
    assert split.oom_kills("/a") == 4
    (tmp_path / "memory/a/memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\n")
    assert split.oom_kills("/a") is None


def test_the_kills_of_scopes_that_are_gone_are_what_the_pods_group_has_more(
    unified: Cgroups, split: Cgroups, tmp_path: Path
) -> None:
    def tell(group: str, kills: int) -> None:
        (tmp_path / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / group / "memory.events").write_text(f"oom {kills}\noom_kill {kills}\n")

    tell("pod.slice", 5)
    tell("pod.slice/crisp-a.scope", 1)
    tell("pod.slice/crisp-b.scope", 2)
    assert unified.oom_kills_of_gone("/pod.slice/crisp-a.scope") == 2
    assert unified.oom_kills_of_gone("/pod.slice/crisp-gone.scope") == 2
    assert unified.oom_kills_of_gone("/none.slice/crisp-a.scope") is None
    assert unified.oom_kills_of_gone("/pod.slice/a") is None  # nobody removes it behind Crisp's back
    assert unified.oom_kills_of_gone("/crisp-a.scope") is None
    assert split.oom_kills_of_gone("/pod.slice/crisp-a.scope") is None
    tell("pod.slice/ssh.service", 0)  # others end there as well
    assert unified.oom_kills_of_gone("/pod.slice/crisp-a.scope") is None


def test_a_cgroup_is_made_in_every_hierarchy_and_removed_from_each(split: Cgroups, tmp_path: Path) -> None:
    split.make("/a/b")
    assert [(tmp_path / name / "a/b").is_dir() for name in ("cpuset", "memory", "pids")] == [True] * 3
    split.make("/a/b")
    split.remove("/a")
    split.remove("/a")
    assert [(tmp_path / name / "a").exists() for name in ("cpuset", "memory", "pids")] == [False] * 3


def test_a_cgroup_is_empty_when_nothing_lives_in_it_or_below(unified: Cgroups, tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/cgroup.procs").write_text("")
    (tmp_path / "a/b/cgroup.procs").write_text(f"{os.getpid()}\n")
    assert not unified.is_empty("/a")
    (tmp_path / "a/b/cgroup.procs").write_text("")
    assert unified.is_empty("/a")
    assert unified.is_empty("/none")


def test_nothing_to_kill_is_success(unified: Cgroups) -> None:
    with ThreadPoolExecutor(1) as io:
        cgroups = Cgroups(unified.hierarchies, io=io)
        assert asyncio.run(cgroups.kill_everything("/none", timeout=1)) == []
