"""What a bundle says is read once for the execs of a container, and what cannot be read is named."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from oci.errors import Internal
from oci.workload import ContainerId
from shim.containers.bundle import Processes, read_config

ONE = ContainerId("1" * 64)


def write(directory: Path, config: object) -> None:
    (directory / "config.json").write_text(json.dumps(config))


def test_a_process_is_read_once_until_its_container_is_gone(tmp_path: Path) -> None:
    async def story() -> list[object]:
        processes = Processes()
        write(tmp_path, {"process": {"cwd": "/a"}})
        seen: list[object] = [await processes.of(ONE, tmp_path)]
        write(tmp_path, {"process": {"cwd": "/b"}})
        seen.append(await processes.of(ONE, tmp_path))
        processes.forget(ONE)
        processes.forget(ONE)
        return [*seen, await processes.of(ONE, tmp_path)]

    assert asyncio.run(story()) == [{"cwd": "/a"}, {"cwd": "/a"}, {"cwd": "/b"}]


def test_only_those_that_were_asked_last_are_kept(tmp_path: Path) -> None:
    async def story() -> object:
        processes = Processes()
        write(tmp_path, {"process": {"cwd": "/a"}})
        for number in range(65):
            await processes.of(ContainerId(str(number)), tmp_path)
        write(tmp_path, {"process": {"cwd": "/b"}})
        return [await processes.of(ContainerId(name), tmp_path) for name in ("64", "0")]

    assert asyncio.run(story()) == [{"cwd": "/a"}, {"cwd": "/b"}]


@pytest.mark.parametrize("content", [{}, {"process": "x"}])
def test_a_bundle_without_a_process_is_named(tmp_path: Path, content: object) -> None:
    write(tmp_path, content)
    with pytest.raises(Internal, match=f"exec: the bundle's {tmp_path}/config.json has no process"):
        asyncio.run(Processes().of(ONE, tmp_path))


def test_a_bundle_that_cannot_be_read_is_named_with_the_stage(tmp_path: Path) -> None:
    with pytest.raises(Internal, match=f"start: cannot read the bundle's {tmp_path}/config.json"):
        read_config(tmp_path, stage="start")
