"""Limits are changed by the runtime and by us, and put back whole when either is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from oci.errors import RuntimeFailed, WrongState
from oci.workload import ContainerId, PodId
from shim.cgroups import Hierarchies
from shim.runtimes.driver import Target
from shim.runtimes.limits import Limits

ID = ContainerId("c")
TARGET = Target(
    id=ID,
    pod_id=PodId("p"),
    directory=Path("/c"),
    log_path=None,
    tty=False,
    stdin=False,
    stdin_once=False,
    cgroup="/pod/c",
)


class Verbs:
    """A runtime whose `update` writes `files`, then fails with `error` if there is one."""

    def __init__(self, files: Mapping[Path, str], error: Exception | None = None) -> None:
        self._files = files
        self._error = error
        self.asked: list[Any] = []

    async def update(self, target: Target, resources: Mapping[str, Any]) -> None:
        self.asked.append((target.id, resources))
        for path, text in self._files.items():
            path.write_text(text)
        if self._error is not None:
            raise self._error


def group(top: Path, **files: str) -> Path:
    (top / "pod/c").mkdir(parents=True)
    for name, text in files.items():
        (top / "pod/c" / name.replace("__", ".")).write_text(text)
    return top / "pod/c"


def run(verbs: Verbs, hierarchies: Hierarchies, change: Mapping[str, Any], *, put_back: bool = False) -> None:
    async def work() -> None:
        with ThreadPoolExecutor(1) as pool:
            limits = Limits(handler="h", apply=verbs.update, hierarchies=hierarchies, io=pool)
            back = await limits.update(TARGET, change)
            if put_back:
                await back()

    asyncio.run(work())


def version_2(tmp_path: Path) -> tuple[Path, Hierarchies]:
    files = {"cpu__weight": "100\n", "cpu__max": "max 100000\n", "memory__max": "1\n", "memory__high": "11\n"}
    return group(tmp_path / "cg", **files, hugetlb__2MB__max="0\n"), Hierarchies(v2=tmp_path / "cg")


def version_1(tmp_path: Path) -> tuple[Path, Hierarchies]:
    cpu, memory = tmp_path / "cpu", tmp_path / "memory"
    group(memory, memory__limit_in_bytes="5\n", memory__memsw__limit_in_bytes="5\n")
    return group(cpu, cpu__shares="1024\n"), Hierarchies(v1=(("cpu", cpu), ("memory", memory)))


def test_the_runtime_is_told_and_the_rest_is_written_by_us(tmp_path: Path) -> None:
    files, hierarchies = version_2(tmp_path)
    verbs = Verbs({files / "cpu.weight": "50\n"})
    change = {
        "cpu": {"shares": 512},
        "unified": {"memory.high": "77"},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 9}],
    }
    run(verbs, hierarchies, change)
    assert verbs.asked == [("c", change)]
    assert [(files / name).read_text() for name in ("cpu.weight", "memory.high", "hugetlb.2MB.max")] == [
        "50\n",
        "77\n",
        "9\n",
    ]
    assert not (tmp_path / "c.resources").exists()


@pytest.mark.parametrize("version", [version_1, version_2])
def test_a_refusal_by_the_runtime_puts_every_file_back(tmp_path: Path, version: Any) -> None:
    files, hierarchies = version(tmp_path)
    name = "cpu.shares" if version is version_1 else "cpu.weight"
    before = (files / name).read_text()
    error = RuntimeFailed("update: no", verb="update")
    with pytest.raises(RuntimeFailed, match=r"^update: no$"):
        run(Verbs({files / name: "7" * len(before.strip()) + "\n"}, error), hierarchies, {"cpu": {}})
    assert (files / name).read_text() == before


def test_a_refusal_of_a_file_of_ours_puts_the_runtime_s_back_too(tmp_path: Path) -> None:
    files, hierarchies = version_2(tmp_path)
    verbs = Verbs({files / "cpu.weight": "999\n"})
    with pytest.raises(WrongState, match=r"writing 'x' to .*/memory\.absent: No such file or directory$"):
        run(verbs, hierarchies, {"unified": {"memory.absent": "x"}})
    assert (files / "cpu.weight").read_text() == "100\n"


def test_the_way_back_leads_back(tmp_path: Path) -> None:
    files, hierarchies = version_2(tmp_path)
    run(Verbs({files / "cpu.weight": "999\n"}), hierarchies, {"cpu": {}}, put_back=True)
    assert (files / "cpu.weight").read_text() == "100\n"
