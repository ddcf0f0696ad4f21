"""Writing a shim's program, with what it is to do wrong, and reading what it was asked."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.doubles.shims.ways import WAYS

_ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What becomes of a verb of the program (`start`, `delete`, `-v`) or a method of the Task service.

    Of both: "fail" (with `words`; `code` is a status of gRPC), "hang", "die", "garbage", "nothing" (an
    empty answer). Of methods: "late" (`seconds`), "drop" (the connection is closed, the shim lives), "torn"
    (half an answer, then as "drop"), "long" (an answer over the limit), "alien" (a frame of no known type),
    "stray" (answers to calls that nobody made, before the answer), "swap" (answered after the next call).
    `after` first does what the verb is for. `times` is how often, 0 for always.
    A plan of "oom" is no failure: what the kernel killed for want of memory is told `seconds` after the end.
    """

    act: str
    words: str = "the double was told to fail"
    code: int = 2
    seconds: float = 0.5
    after: bool = False
    times: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What the program is written with."""

    ways: str
    state: Path  # a directory of its own
    runtime: str = "/usr/bin/crun"
    plans: Mapping[str, Plan] = field(default_factory=dict)


_PROGRAM = """#!{python} -I
import sys
sys.path.insert(0, {root!r})
from tests.doubles.shims.program import main
main({setup!r})
"""


def install(directory: Path, setup: Setup) -> Path:
    """Write the double; the path of its program. Its state's directory is made when it is first needed."""
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / WAYS[setup.ways].program
    document = json.dumps(
        {
            "ways": setup.ways,
            "state": str(setup.state),
            "runtime": setup.runtime,
            "calls": str(directory / "calls"),
            "plans": {name: asdict(plan) for name, plan in setup.plans.items()},
        }
    )
    temporary = program.with_suffix(".new")
    temporary.write_text(_PROGRAM.format(python=sys.executable, root=str(_ROOT), setup=document))
    temporary.chmod(0o755)
    temporary.replace(program)
    return program


def calls(directory: Path) -> list[str]:
    """Verbs with the id, and methods, that the double was called with, in order."""
    path = directory / "calls"
    return path.read_text().split("\n")[:-1] if path.exists() else []
