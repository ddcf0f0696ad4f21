"""State that earlier releases wrote is read as it was meant, from the database and from the copies alone."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from shim.state.store import Record, Store
from tests.golden import state


async def read(folder: Path) -> tuple[list[Record], list[str]]:
    store = await Store.open(folder)
    found: list[Record] = [
        *store.pods.values(),
        *store.containers.values(),
        *store.images.values(),
        *store.layers.values(),
    ]
    findings = store.findings
    await store.close()
    return found, findings


@pytest.mark.parametrize("database", ["whole", "gone"])
def test_the_state_of_release_0_1_is_read_as_it_was_written(tmp_path: Path, database: str) -> None:
    folder = tmp_path / "state"
    shutil.copytree(state.FOLDER, folder)
    if database == "gone":
        (folder / "state.db").unlink()
    found, findings = asyncio.run(read(folder))
    assert found == list(state.RECORDS)
    assert (findings == []) == (database == "whole")


def test_rewriting_the_state_of_release_0_1_changes_none_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    shutil.copytree(state.FOLDER, folder)

    async def rewrite() -> None:
        store = await Store.open(folder)
        for record in state.RECORDS:
            await store.put(record)
        await store.close()

    asyncio.run(rewrite())
    assert asyncio.run(read(folder)) == (list(state.RECORDS), [])
