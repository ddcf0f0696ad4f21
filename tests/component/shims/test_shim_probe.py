"""Probing handlers of gVisor's shim: which runsc is below, what follows from it, and what is refused."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from config.models import HandlerSettings
from oci.quirks import Ability
from shim import cgroups
from shim.logger.keeper import LogKeeper
from shim.runtimes.kinds import Candidate, Machine
from shim.runtimes.probe import probe
from shim.runtimes.shimkind import ShimKind
from shim.runtimes.table import Handler, InvalidHandler

ROOT = Path("/run/of/this/handler")


@dataclass(kw_only=True)
class Place:
    """Two runscs of different versions and a shim, all of which only say what they are."""

    directory: Path

    def __post_init__(self) -> None:
        self.shim = self.program("containerd-shim-runsc-v1", "echo '  Version: 2.1.5+unknown'")
        self.found = self.program("runsc", "echo runsc version release-20221219.0")
        self.named = self.program("my-runsc", "echo runsc version release-20260905.0")

    def program(self, name: str, script: str) -> Path:
        file = self.directory / name
        # which answers every question with its version, so that it tells no features
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        return file

    def probed(self, *, path: str | None = None, **settings: Any) -> Handler | InvalidHandler:
        keeper = LogKeeper(
            directory=self.directory, cgroups=cgroups.Cgroups(cgroups.find_hierarchies()), cgroup=""
        )
        values = {"kind": "shim", "binary": str(self.shim), **settings}
        candidate = Candidate(
            name="mine", settings=HandlerSettings.model_validate(values), root=ROOT, source="a test"
        )
        machine = Machine(kernel=(6, 1, 0), path=str(self.directory) if path is None else path, limit=30.0)
        return asyncio.run(probe(candidate, {"shim": ShimKind(keeper)}, machine))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(directory=tmp_path)


def usable(found: Handler | InvalidHandler) -> Handler:
    assert isinstance(found, Handler), found.reason
    return found


def test_the_runtime_below_decides_what_is_special_about_the_handler(place: Place) -> None:
    old = usable(place.probed())
    assert (old.runtime_binary, old.root, old.quirks.port_forward) == (place.found, ROOT, False)
    assert not old.features.apparmor
    assert set(old.quirks.lacks) == {Ability.GROUP, Ability.LIMITS, Ability.OOM}
    new = usable(place.probed(runtime_binary=str(place.named)))
    assert (new.runtime_binary, new.quirks.port_forward) == (place.named, True)


def test_a_file_of_somebody_elses_says_which_runtime_and_where_its_state_is(
    place: Place, tmp_path: Path
) -> None:
    file = tmp_path / "runsc.toml"
    file.write_text('binary_name = "my-runsc"\nroot = "/run/mine"\n')
    found = usable(place.probed(config_path=str(file)))
    assert (found.runtime_binary, found.root) == (place.named, Path("/run/mine/crisp"))
    file.write_text(f'binary_name = "{place.named}"\n')
    assert usable(place.probed(config_path=str(file))).runtime_binary == place.named


def test_what_cannot_be_meant_disables_the_handler_and_names_the_key(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "runsc.toml"
    file.write_text("root = ")
    reasons = [
        place.probed(path="/nonesuch"),
        place.probed(config_path=str(file)),
        place.probed(config_path=str(tmp_path / "none.toml")),
        place.probed(config_path=str(file), runtime_binary=str(place.named)),
    ]
    told = [entry.reason for entry in reasons if isinstance(entry, InvalidHandler)]
    assert [reason.replace(f"{tmp_path}/", "") for reason in told] == [
        "runsc is not on PATH (/nonesuch): install it or set handlers.mine.runtime_binary",
        "handlers.mine.config_path: runsc.toml: Invalid value (at end of document)",
        "handlers.mine.config_path: none.toml: No such file or directory",
        "handlers.mine.runtime_binary: with config_path that file's binary_name says it",
    ]
