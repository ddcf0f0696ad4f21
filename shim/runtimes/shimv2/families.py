"""How the known shims differ, as data: a shim that is not here is driven as the last entry says.

Extended by an entry; nothing else knows a shim by its name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final


class Sharing(Enum):
    """Which containers one shim process serves."""

    POD = "pod"
    CONTAINER = "container"


class OptionsKind(Enum):
    """The message that Create takes as options."""

    RUNC = "containerd.runc.v1.Options"
    PATH = "runtimeoptions.v1.Options"
    NONE = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One kind of shim."""

    name: str
    program: str  # a pattern of the program's file name
    sharing: Sharing
    host_processes: bool  # a container's processes are the node's: signals, cgroups and /proc reach them
    first_process: bool  # the pod needs a first container, which becomes the sandbox
    options: OptionsKind
    options_type: str = ""  # runtimeoptions' own type_url
    events: bool = False  # it fails or dies where nobody takes its events, or only they say something
    calm_from: int = 0  # a release (yyyymmdd) from which it is better off with nobody to publish to
    runtime: str = ""  # the OCI runtime below it, whose features count, unless configured
    leavings: tuple[str, ...] = ()  # patterns of files that it makes in a bundle and does not remove
    apart: bool = False  # it unmounts what is at the bundle's `rootfs`: it gets a bundle of its own
    configured: bool = False  # Create takes a file that names runtime, root and flags: see `configuration.py`
    remembers: str = ""  # the file of a bundle without which `delete` fails, and nothing was made
    forgets_unstarted: bool = False  # what is killed before its start answers no Wait, and no Delete returns
    insists_on_score: bool = False  # `start` lowers the shim's OOM score, and ends where that is refused


FAMILIES: Final = (
    Family(
        name="runc",
        program=r"containerd-shim-runc-v\d+",
        sharing=Sharing.POD,
        host_processes=True,
        first_process=False,
        options=OptionsKind.RUNC,
        runtime="runc",
        # an exit.json of an earlier life would be taken for the end of the next
        leavings=(
            "exit.json",
            "init.pid",
            "log.json",
            "options.json",
            "runtime",
            "address",
            "[0-9]*",
        ),
    ),
    Family(
        name="runsc",
        program=r"containerd-shim-runsc-v\d+",
        # grouped only where its own configuration says so, and a shim of its own serves each then as well
        sharing=Sharing.CONTAINER,
        host_processes=False,
        first_process=True,
        options=OptionsKind.PATH,
        options_type="io.containerd.runsc.v1.options",
        events=True,  # an event that is not taken is the end of it, until it was told of nobody
        calm_from=20260801,
        runtime="runsc",
        apart=True,
        configured=True,
        remembers="state.json",
        forgets_unstarted=True,
        # to -999, which takes CAP_SYS_RESOURCE: what a node in a container often lacks
        insists_on_score=True,
    ),
    Family(
        name="kata",
        program=r"containerd-shim-kata(?:-\w+)*-v\d+",
        sharing=Sharing.POD,
        host_processes=False,
        first_process=True,
        options=OptionsKind.PATH,
        options_type="io.containerd.kata.v2.options",
        events=True,  # what the guest's kernel killed is told by an event alone
    ),
    Family(
        name="runwasi",
        program=r"containerd-shim-(?:wasmtime|wasmedge|wasmer|wws|spin|slight|lunatic)-v\d+",
        sharing=Sharing.POD,
        host_processes=True,
        first_process=False,
        options=OptionsKind.NONE,
        events=True,  # `start` fails where nobody takes connections
    ),
    Family(
        name="other",
        program=r".*",
        sharing=Sharing.CONTAINER,
        host_processes=False,
        first_process=True,
        options=OptionsKind.NONE,
        events=True,
    ),
)


def publishes(family: Family, version: str) -> bool:
    """Whether a shim of this version is told where its events are taken."""
    release = re.search(r"\b(20\d{6})(?:\.\d+)?\b", version)
    calm = release is not None and 0 < family.calm_from <= int(release[1])
    return family.events and not calm


def family_of(program: str) -> Family:
    """The family of a program's file name."""
    return next(family for family in FAMILIES if re.fullmatch(family.program, program))


def program_of(runtime_type: str) -> str:
    """The program that a runtime type names: `io.containerd.runc.v2` is `containerd-shim-runc-v2`."""
    words = runtime_type.split(".")
    return f"containerd-shim-{words[-2]}-{words[-1]}"
