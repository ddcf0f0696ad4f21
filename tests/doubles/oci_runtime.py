"""An OCI runtime that fails as it is told: a program that stands before a real one, verb by verb.

`install` writes the program; a verb without a plan is handed to the real runtime unchanged.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a verb does. `act`: "fail", "hang", "garbage" (on every channel), "nothing" (status 0), "die", and
    for checkpoint "save" (an image of nothing) and "refuse" (as CRIU does).

    `after` first lets the real runtime do the work. `words` go to the JSON log, unless `silent`.
    """

    act: str
    words: str = "the double was told to fail"
    status: int = 1
    silent: bool = False
    after: bool = False


_PROGRAM = """#!{python}
import json, os, signal, subprocess, sys, time
REAL, PLANS, CALLS = {real!r}, json.loads({plans!r}), {calls!r}
VERBS = ("create", "start", "state", "kill", "delete", "exec", "update", "features", "checkpoint")
verb = next((word for word in sys.argv[1:] if word in VERBS and "--help" not in sys.argv), "")
with open(CALLS, "a") as calls:
    calls.write(verb + "\\n")
plan = PLANS.get(verb)
if plan is None:
    os.execv(REAL, [REAL, *sys.argv[1:]])
if plan["after"]:
    subprocess.run([REAL, *sys.argv[1:]], check=True)
log = next((word[6:] for word in sys.argv if word.startswith("--log=")), None)
if plan["act"] == "hang":
    time.sleep(600)
if plan["act"] == "die":
    os.kill(os.getpid(), signal.SIGKILL)
if plan["act"] == "garbage":
    sys.stdout.buffer.write(bytes(range(256)) * 4)
    sys.stdout.flush()
    sys.stderr.buffer.write(bytes(range(256)) * 4)
    sys.stderr.flush()
    if log:
        open(log, "ab").write(bytes(range(256)) * 4 + b"\\n{{\\"level\\": 5}}\\n[]\\n")
    sys.exit(plan["status"])
if plan["act"] in ("save", "refuse"):
    places = dict(word.split("=", 1) for word in sys.argv if "-path=" in word)
    if plan["act"] == "save":
        open(places["--image-path"] + "/pages-1.img", "w").write("memory")
        sys.exit(0)
    open(places["--work-path"] + "/dump.log", "w").write("(00.1) Error (x.c:1): " + plan["words"] + "\\n")
    sys.exit(1)
if plan["act"] == "fail":
    if not plan["silent"]:
        if log:
            open(log, "a").write(json.dumps({{"level": "error", "msg": plan["words"]}}) + "\\n")
        sys.stderr.write(plan["words"] + "\\n")
    sys.exit(plan["status"])
sys.exit(0)
"""


def install(directory: Path, real: Path, plans: Mapping[str, Plan]) -> Path:
    """Write the double that stands before `real`; the path of its program. Its calls go to `calls`."""
    program = directory / "double-runtime"
    program.write_text(
        _PROGRAM.format(
            python=sys.executable,
            real=str(real),
            plans=json.dumps({verb: asdict(plan) for verb, plan in plans.items()}),
            calls=str(directory / "calls"),
        )
    )
    program.chmod(0o755)
    return program


def calls(directory: Path) -> list[str]:
    """The verbs that the double was called with, in order."""
    path = directory / "calls"
    return path.read_text().split() if path.exists() else []
