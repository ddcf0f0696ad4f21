"""deploy/install.sh: one run makes working commands, the next finds nothing to do, mistakes are told."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests import machine

TREE = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is installed: the next run finds nothing to do only if nobody edits it."""
    top = tmp_path_factory.mktemp("tree")
    for name in ("api", "cli", "config", "deploy", "oci", "shim"):
        shutil.copytree(TREE / name, top / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("LICENSE", "README.md", "pyproject.toml", "requirements.lock"):
        shutil.copy(TREE / name, top / name)
    return top


def install(
    tree: Path, *options: str | Path, before: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*(before or machine.outside()), "sh", tree / "deploy/install.sh", "--no-packages", *options],
        cwd="/", capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def answer(program: Path) -> str:
    """What a command says to --help from a directory that has no sources."""
    return subprocess.run([program, "--help"], cwd="/", capture_output=True, text=True, check=True).stdout


@pytest.mark.timeout(400)
def test_two_runs_with_a_network_and_one_without(tree: Path, tmp_path: Path) -> None:
    prefix, commands, wheels = tmp_path / "prefix", tmp_path / "bin", tmp_path / "wheels"
    first = install(tree, "--prefix", prefix, "--commands", commands)
    assert first.returncode == 0, first.stderr
    assert "usage: crispd" in answer(commands / "crispd")
    assert "Usage: crisp" in answer(commands / "crisp")

    stamps = [(prefix / name).stat().st_mtime_ns for name in (".locked", ".sources")]
    second = install(tree, "--prefix", prefix, "--commands", commands)
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert [(prefix / name).stat().st_mtime_ns for name in (".locked", ".sources")] == stamps

    assert install(tree, "--prefix", prefix, "--download-wheels", wheels).returncode == 0
    alone = tmp_path / "alone"
    offline = install(
        tree, "--no-commands", "--prefix", alone, "--wheels", wheels, before=("unshare", "--net")
    )
    assert offline.returncode == 0, offline.stderr
    assert "usage: crispd" in answer(alone / "bin/crispd")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--frob"], "unknown option --frob"),
        (["--prefix"], "--prefix needs a value"),
        (["--prefix", "relative"], "--prefix relative: must be an absolute path"),
        (["--wheels", "/nowhere"], "--wheels /nowhere: no such directory"),
    ],
)
def test_a_mistake_is_told_before_anything_is_done(tree: Path, options: list[str], told: str) -> None:
    refused = install(tree, *options)
    assert (refused.returncode, refused.stderr.splitlines()[-1]) == (1, f"install.sh: {told}")


def test_a_command_that_is_not_ours_is_not_replaced(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/crisp").write_text("somebody's")
    refused = install(tree, "--prefix", tmp_path / "prefix", "--commands", tmp_path / "bin")
    assert refused.returncode == 1
    assert "crisp is there and is not a link of ours" in refused.stderr
    assert (tmp_path / "bin/crisp").read_text() == "somebody's"
    assert not (tmp_path / "prefix").exists(), "it was found out before anything was done"
