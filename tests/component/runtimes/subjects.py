"""The handlers that the suite of the driver interface runs on: settings alone, probed as the daemon does it.

To put another runtime or double through the suite, add an entry to SUBJECTS. What it can do is not said here:
that is read from what the probe found.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from config.models import HandlerSettings
from shim import cgroups
from shim.facts.host import kernel_version
from shim.logger.keeper import LogKeeper
from shim.runtimes.kinds import Candidate, Kind, Machine
from shim.runtimes.ocikind import OciKind
from shim.runtimes.probe import probe
from shim.runtimes.shimkind import ShimKind
from shim.runtimes.table import Handler
from tests.doubles import kata_runtime
from tests.doubles.shims.install import Setup, install
from tests.images.catalogue import unpacked
from tests.parts.build import program

RUNC = "/usr/sbin/runc"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """`settings` is called when it is first needed, since parts are built on demand.

    It gets an existing directory, for what a double must write. Only those that are `whole` go through all
    files of this folder, the others through test_interface.py.
    """

    settings: Callable[[Path], Mapping[str, Any]]
    whole: bool = False


def _shim(binary: Path, runtime: Path | str = RUNC) -> Mapping[str, Any]:
    return {"kind": "shim", "binary": binary, "runtime_binary": runtime}


def _double(ways: str) -> Callable[[Path], Mapping[str, Any]]:
    """A shim that is not to be had here; what it keeps is looked through for leaks (`STATE`)."""

    def settings(directory: Path) -> Mapping[str, Any]:
        return {"kind": "shim", "binary": install(directory, Setup(ways=ways, state=directory / STATE))}

    return settings


STATE = "state"
SUBJECTS: Mapping[str, Subject] = {
    "runc": Subject(settings=lambda _: {}, whole=True),
    "crun": Subject(settings=lambda _: {}, whole=True),
    "runc-new": Subject(settings=lambda _: {"binary": program("runc", "runc")}),
    "youki": Subject(settings=lambda _: {"binary": program("youki", "youki")}),
    "runsc-cli": Subject(settings=lambda _: {"binary": program("runsc", "runsc")}),
    "kata": Subject(settings=lambda directory: {"binary": kata_runtime.install(directory)}),
    "shim-runc-v2": Subject(
        settings=lambda _: _shim(program("containerd", "containerd-shim-runc-v2")), whole=True
    ),
    # Debian 12's: another way of starting, and version 2 of the Task service
    "shim-runc-1.6": Subject(
        settings=lambda _: _shim(unpacked("containerd") / "usr/bin/containerd-shim-runc-v2"), whole=True
    ),
    "runsc": Subject(
        settings=lambda _: _shim(program("runsc", "containerd-shim-runsc-v1"), program("runsc", "runsc"))
    ),
    "kata-go": Subject(settings=_double("kata-go")),
    "kata-rust": Subject(settings=_double("kata-rust")),
    "runwasi": Subject(settings=_double("runwasi")),
    "runsc-old": Subject(settings=_double("runsc-old")),
}
WHOLE = tuple(name for name, subject in SUBJECTS.items() if subject.whole)


@cache
def probed(name: str, directory: Path) -> Handler:
    """The handler as the daemon would have it; AssertionError says why it cannot be used."""
    values = {key: str(value) for key, value in SUBJECTS[name].settings(directory).items()}
    settings = HandlerSettings.model_validate(values)
    groups = cgroups.Cgroups(cgroups.find_hierarchies())
    keeper = LogKeeper(directory=directory, cgroups=groups, cgroup="")  # probing starts nothing of it
    kinds: dict[str, Kind] = {"oci": OciKind(), "shim": ShimKind(keeper)}
    candidate = Candidate(name=name, settings=settings, root=directory, source="a test")
    machine = Machine(
        kernel=kernel_version(os.uname().release), path="/usr/sbin:/usr/bin:/sbin:/bin", limit=60.0
    )
    found = asyncio.run(probe(candidate, kinds, machine))
    assert isinstance(found, Handler), found.reason
    return found
