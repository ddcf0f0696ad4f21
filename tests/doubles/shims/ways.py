"""What each shim does in its own way, as data. Source: the facts about shims that the drivers build on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

_KATA: Final = 'Kata Containers containerd shim ({}): id: "io.containerd.kata.v2", version: {}, commit: 0'
SHIM_OPTIONS: Final = "runtimeoptions.v1.Options"


class Answer(Enum):
    """How `start` says where the shim serves."""

    RAW = "raw"  # the address alone, version 2
    JSON = "json"
    RESULT = "result"  # a BootstrapResult


class Need(Enum):
    """What becomes of a shim whose events nobody takes."""

    NONE = "none"  # it publishes, and drops what fails
    START = "start"  # `start` fails where an address is given and nobody is there
    ALWAYS = "always"  # `start` fails without one, too
    PANIC = "panic"  # the shim dies of an event that is not taken, also without an address


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """One shim. `version` is what it prints, `program` the name that it is installed under."""

    program: str
    version: str
    answer: Answer = Answer.RAW
    task: int = 2  # version of the Task service that it serves, and no other
    files: tuple[str, ...] = ("address",)  # that `start` leaves in its directory
    state: str = ""  # a file of a bundle that Create makes, and without which `delete` fails
    params: bool = False  # BootstrapParams on stdin are required
    publisher: bool = False  # a publisher is required, and a bundle for `delete`
    go: bool = True  # written in Go, not in Rust
    grouped: bool = True  # one shim for a pod
    guest: bool = False  # containers live in a sandbox: all pids are the sandbox's, which comes first
    block: bool = False  # the root file system is one mount of a block device
    options: str = SHIM_OPTIONS  # the type of Create's options; others are refused
    options_type: str = ""  # and their own type_url
    events: Need = Need.NONE

    @property
    def runc(self) -> bool:
        return self.program.startswith("containerd-shim-runc")


WAYS: Final[Mapping[str, Ways]] = {
    "kata-go": Ways(
        program="containerd-shim-kata-v2",
        version=_KATA.format("Golang", "3.2.0"),
        files=("address", "shim.pid"),
        guest=True,
    ),
    "kata-rust": Ways(
        program="containerd-shim-kata-v2",
        version=_KATA.format("Rust", "4.1.0"),
        go=False,
        files=("address", "shim.pid"),
        publisher=True,
        guest=True,
        events=Need.START,
    ),
    "kata-fc": Ways(
        program="containerd-shim-kata-fc-v2",
        version=_KATA.format("Golang", "3.2.0"),
        files=("address", "shim.pid"),
        guest=True,
        block=True,
    ),
    "runwasi": Ways(
        program="containerd-shim-wasmtime-v1",
        go=False,
        version="containerd-shim-wasmtime-v1:\n  Runtime: wasmtime\n  Version: 0.6.0\n  Revision: 0",
        options="",
        events=Need.ALWAYS,
    ),
    "runsc-old": Ways(
        program="containerd-shim-runsc-v1",
        version="containerd-shim-runsc-v1:\n  Version:  release-20221219.0\n  Revision: ",
        files=("address", "shim.pid"),
        grouped=False,
        guest=True,
        options_type="io.containerd.runsc.v1.options",
        state="state.json",
        events=Need.PANIC,
    ),
    # What containerd-shim-runc-v2 says is compared with the real one's words.
    "runc-2.0": Ways(
        program="containerd-shim-runc-v2",
        version="containerd-shim-runc-v2:\n  Version:  v2.0.5\n  Revision: 0\n  Go version: go1.23",
        answer=Answer.JSON,
        task=3,
        files=(),
        options="containerd.runc.v1.Options",
    ),
    "runc-2.4": Ways(
        program="containerd-shim-runc-v2",
        version="containerd-shim-runc-v2:\n  Version:  v2.4.2\n  Revision: 0\n  Go version: go1.26",
        answer=Answer.RESULT,
        task=3,
        files=(),
        params=True,
        options="containerd.runc.v1.Options",
    ),
}
