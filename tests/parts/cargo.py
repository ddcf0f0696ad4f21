"""Compiles a crate's programs with a cargo that is new enough, where the machine has one; knows no crate."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.parts.table import RUST_AT_LEAST, Crate


class NoToolchain(RuntimeError):
    """The part cannot be made here: no cargo that is new enough, which Debian's packages are not (1.85 in 12
    and in 13), or the virtual machine, where nothing is made.
    """


def compile_crate(crate: Crate, scratch: Path, made: Path) -> None:
    """Build every program of the crate into `made`; RuntimeError has cargo's words, or is NoToolchain."""
    target = scratch / "root"
    environment = _environment()
    words = ["install", crate.name, "--version", crate.version, "--locked", "--root", str(target)]
    words += [f"--features={','.join(crate.features)}"] if crate.features else []
    # Others may be at work on the machine, tests with time limits among them.
    _run(["nice", "-n", "15", str(cargo_command(environment)), *words], environment)
    for program in (target / "bin").iterdir():
        shutil.move(program, made / program.name)


def cargo_command(environment: Mapping[str, str]) -> Path:
    """A cargo that is new enough, on PATH or of rustup. Raises NoToolchain."""
    found = _found(environment)
    if found is None:
        wanted = ".".join(map(str, RUST_AT_LEAST))
        raise NoToolchain(f"no cargo of {wanted} or later is on PATH or in ~/.cargo/bin")
    return found


def _found(environment: Mapping[str, str]) -> Path | None:
    found = shutil.which("cargo", path=environment["PATH"])
    if found is None:
        return None
    try:
        text = _run([found, "--version"], environment)
    except RuntimeError:
        return None
    match = re.search(r"cargo (\d+)\.(\d+)\.(\d+)", text)
    return Path(found) if match and tuple(map(int, match.groups())) >= RUST_AT_LEAST else None


def _environment() -> dict[str, str]:
    home = os.environ.get("HOME") or pwd.getpwuid(os.geteuid()).pw_dir
    path = f"{os.environ.get('PATH', '')}:{home}/.cargo/bin:/usr/local/bin:/usr/bin:/bin"
    return {**os.environ, "HOME": home, "PATH": path}


def _run(argv: list[str], environment: Mapping[str, str]) -> str:
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)} failed with {done.returncode}: {done.stderr[-4000:]}")
    return done.stdout
