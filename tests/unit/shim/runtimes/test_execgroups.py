"""Groups of execs, over directories that look like a hierarchy with nobody in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from oci.features import ExecGroup
from shim.cgroups import Hierarchies
from shim.runtimes.execgroups import MOST, ExecGroups

CONTAINER = "/kubepods/pod1/abc"


@pytest.fixture
def container(tmp_path: Path) -> Path:
    made = tmp_path / "kubepods/pod1/abc"
    made.mkdir(parents=True)
    return made


def groups(root: Path, support: ExecGroup = ExecGroup.PATH) -> ExecGroups:
    return ExecGroups(Hierarchies(v2=root), support=support)


def occupy(container: Path, number: int, pid: str = "4194304") -> Path:
    procs = container / f"crisp-exec-{number}" / "cgroup.procs"
    procs.write_text(f"{pid}\n")
    return procs


def test_a_group_is_used_again_once_it_is_empty(tmp_path: Path, container: Path) -> None:
    made = groups(tmp_path)
    assert [made.take(CONTAINER), made.take(CONTAINER)] == [0, 1]
    made.give_back(CONTAINER, 0)
    assert made.take(CONTAINER) == 0
    assert sorted(path.name for path in container.iterdir()) == ["crisp-exec-0", "crisp-exec-1"]


def test_a_group_that_holds_what_an_exec_left_is_used_again_when_that_is_gone(
    tmp_path: Path, container: Path
) -> None:
    made = groups(tmp_path)
    assert made.take(CONTAINER) == 0
    left = occupy(container, 0)
    made.give_back(CONTAINER, 0)
    assert made.take(CONTAINER) == 1
    left.write_text("")
    made.give_back(CONTAINER, 1)
    assert made.take(CONTAINER) == 0


def test_groups_of_an_earlier_life_are_found_and_kept_apart(tmp_path: Path, container: Path) -> None:
    (container / "crisp-exec-0").mkdir()
    (container / "crisp-exec-1").mkdir()
    occupy(container, 0)
    assert groups(tmp_path).take(CONTAINER) == 1


def test_processes_in_groups_below_count(tmp_path: Path, container: Path) -> None:
    below = container / "crisp-exec-0/own"
    below.mkdir(parents=True)
    (container / "crisp-exec-0/cgroup.procs").write_text("")
    (below / "cgroup.procs").write_text("4194304\n")
    assert groups(tmp_path).take(CONTAINER) == 1


def test_there_is_an_end_to_groups(tmp_path: Path, container: Path) -> None:
    made = groups(tmp_path)
    assert [made.take(CONTAINER) for _ in range(MOST)] == list(range(MOST))
    assert made.take(CONTAINER) is None


def test_there_is_none_where_there_can_be_none(tmp_path: Path, container: Path) -> None:
    v1 = Hierarchies(v1=(("freezer", tmp_path), ("pids", tmp_path)))
    assert (
        groups(tmp_path, ExecGroup.NONE).take(CONTAINER),
        groups(tmp_path).take("/gone"),
        groups(tmp_path).take(""),
        ExecGroups(v1, support=ExecGroup.PATH).take(CONTAINER),
        ExecGroups(Hierarchies(v1=(("pids", tmp_path),)), support=ExecGroup.CONTROLLER).take(CONTAINER),
        groups(tmp_path, ExecGroup.NONE).kill(CONTAINER, 0),
    ) == (None, None, None, None, None, [])
    assert list(container.iterdir()) == []


def test_the_runtime_is_told_the_group_and_on_version_1_its_controller(
    tmp_path: Path, container: Path
) -> None:
    v1 = ExecGroups(Hierarchies(v1=(("freezer", tmp_path),)), support=ExecGroup.CONTROLLER)
    assert v1.take(CONTAINER) == 0
    assert (v1.argument(0), groups(tmp_path).argument(3)) == ("freezer:crisp-exec-0", "crisp-exec-3")
