"""Each handler beside containerd with the same runtime or shim: pod running, ExecSync, end, memory per pod.

`available` says which runtimes the machine has for both sides; `measure` takes them by turns.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import gvisor, memory, work
from benchmarks.report import Row
from benchmarks.run import Run, Samples, eight
from tests.parts.build import directory as part
from tests.parts.build import program


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One of crispd's handlers and the runtime of containerd that it is held against, "" for none.

    `most` bounds crispd / containerd for a pod's start, its execs and its end.
    """

    ours: str
    theirs: str
    most: float | None = None

    @property
    def title(self) -> str:
        if self.theirs in ("", self.ours):
            return self.ours
        return f"{self.ours} beside containerd's {self.theirs}"


PAIRS = (
    Pair(ours="runc", theirs="runc"),
    Pair(ours="shim-runc-v2", theirs="runc", most=0.9),
    Pair(ours="crun", theirs="runc", most=0.55),
    Pair(ours="runc-new", theirs="runc-new"),
    Pair(ours="youki", theirs="youki"),
    Pair(ours="runsc", theirs="runsc", most=1.0),
    Pair(ours="runsc-cli", theirs="runsc", most=1.0),
)


PLACE = "shims"
"""In the run's directory: what containerd finds by name."""


def _built(name_of_part: str, name: str) -> Path | None:
    """Only where the tests have made it: compiling youki takes minutes, and a cargo that is new enough."""
    found = part(name_of_part) / name
    return found if found.exists() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Available:
    """`crispd` are tables of its configuration by handler; `containerd` is text for its own, with all
    runtimes of `runtimes`; `path` are directories where its shims are."""

    crispd: dict[str, dict[str, Any]]
    containerd: str
    runtimes: frozenset[str]
    path: tuple[Path, ...]


NONE = Available(crispd={}, containerd="", runtimes=frozenset(), path=())


def available(directory: Path) -> Available:
    """What of PAIRS this machine can run; builds what is not built. `directory` is for containerd's shims."""
    tables: dict[str, dict[str, Any]] = {
        "crun": {},
        "shim-runc-v2": {
            "kind": "shim",
            "binary": str(program("containerd", "containerd-shim-runc-v2")),
            "runtime_binary": str(shutil.which("runc")),
        },
        "runsc": {
            "kind": "shim",
            "binary": str(program("runsc", "containerd-shim-runsc-v1")),
            "runtime_binary": str(program("runsc", "runsc")),
        },
        "runsc-cli": {"binary": str(program("runsc", "runsc"))},
    }
    binaries = {"runc-new": program("runc", "runc"), "youki": _built("youki", "youki")}
    binaries = {name: binary for name, binary in binaries.items() if binary is not None}
    tables |= {name: {"binary": str(binary)} for name, binary in binaries.items()}
    texts = [
        f"""\
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.{name}]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.{name}.options]
BinaryName = '{binary}'
"""
        for name, binary in binaries.items()
    ]
    texts.append(
        """\
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runsc]
runtime_type = 'io.containerd.runsc.v1'
"""
    )
    return Available(
        crispd=tables,
        containerd="".join(texts),
        runtimes=frozenset({"runc", "runsc", *binaries}),
        path=(gvisor.place(directory),),
    )


def measure(run: Run) -> list[Row]:
    """The rows of every pair of which crispd has the handler."""
    has = available(run.directory / PLACE)
    rows: list[Row] = []
    for pair in PAIRS:
        if pair.ours != "runc" and pair.ours not in has.crispd:
            run.say(f"{pair.ours}: left out, it does not run on this machine")
            continue
        if pair.theirs not in has.runtimes:
            run.say(f"{pair.ours}: alone, containerd's {pair.theirs} does not run on this machine")
            pair = Pair(ours=pair.ours, theirs="")  # noqa: PLW2901 - the same without its other half
        rows += _pair(run, pair)
    return rows


def _pair(run: Run, pair: Pair) -> list[Row]:
    samples: dict[str, Samples] = defaultdict(lambda: defaultdict(list))
    names = {"crispd": pair.ours, "containerd": pair.theirs}
    sides = [side for side in run.sides if names[side.name]]
    for side in sides:  # what is made once, such as directories and the shims' log process
        (pod,) = run.pods(1, names[side.name])
        work.start(run.clients[side.name], pod)
        work.end(run.clients[side.name], pod)
    for turn in run.turns(run.counts.handled):
        for side in (side for side in turn if side in sides):
            client = run.clients[side.name]
            (pod,) = run.pods(1, names[side.name])
            watch, execs = work.life(client, pod, execs=run.counts.execs)
            samples["exec"][side.name] += execs
            whole = sum(watch.taken.values())
            start = sum(watch.taken[stage] for stage in work.START)
            samples["start"][side.name].append(start)
            samples["end"][side.name].append(whole - start)
    for side in sides:
        client = run.clients[side.name]
        pods = run.pods(run.counts.packed, names[side.name])
        before = sum(memory.proportional(side).values())
        eight(partial(work.start, client), pods)
        by_program = memory.proportional(side)
        samples["memory"][side.name].append((sum(by_program.values()) - before) / len(pods))
        rounded = {name: round(value, 1) for name, value in by_program.items()}
        run.say(f"{side.name}, {names[side.name]}, {len(pods)} pods, PSS by program (MiB): {rounded}")
        eight(partial(work.end, client), pods)
    title, most = pair.title, pair.most
    return [
        Row(name=f"{title}: pod running", unit="ms", values=samples["start"], most=most),
        Row(name=f"{title}: ExecSync true", unit="ms", values=samples["exec"], most=most),
        Row(name=f"{title}: stop and remove", unit="ms", values=samples["end"], most=most),
        Row(name=f"{title}: memory per pod", unit="MiB", values=samples["memory"]),
    ]
