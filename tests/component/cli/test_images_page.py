"""docs/images.md: its commands, run one after the other on a daemon of their own, say what the page shows."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.models import ImageSettings
from tests.component.cli.person import command, environment
from tests.daemon import TREE, Daemon
from tests.layers import fuzz

TEXT = (TREE / "docs/images.md").read_text()
COMMANDS = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SETTINGS = re.compile(r"^```toml\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def steps() -> Iterator[tuple[str, str]]:
    """Each command of the page with the output that stands below it."""
    for block in COMMANDS.findall(TEXT):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, shown = step.partition("\n")
            yield line, shown


def matches(shown: str, found: str) -> bool:
    """Whether the output is the page's, in which … stands for anything."""
    return re.fullmatch(".*".join(map(re.escape, shown.split("…"))), found, re.DOTALL) is not None


def test_every_command_says_what_the_page_shows(daemon: Daemon, tmp_path: Path) -> None:
    wrapper = tmp_path / "bin/crisp"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {" ".join(command())} "$@"\n')
    wrapper.chmod(0o755)
    variables = environment(daemon, PYTHONUNBUFFERED="1")  # the order of what is said, as on a terminal
    variables["PATH"] = f"{wrapper.parent}:{variables['PATH']}"
    for line, shown in steps():
        for there, here in (("/var/lib/crisp", daemon.state_dir), ("/var/tmp", tmp_path)):
            line, shown = line.replace(there, str(here)), shown.replace(there, str(here))
        done = subprocess.run(
            ["bash", "-c", line], env=variables, text=True, timeout=60, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert (done.returncode, matches(shown, done.stdout)) == (0, True), f"{line}\n{done.stdout}"


@pytest.mark.parametrize("text", SETTINGS.findall(TEXT))
def test_every_setting_of_the_page_is_one(text: str) -> None:
    tables = tomllib.loads(text)
    assert tables.keys() == {"images"}
    ImageSettings.model_validate(tables["images"])


def test_what_the_page_names_is_there() -> None:
    for name in re.findall(r"\]\(([\w/.-]+\.md)\)", TEXT):
        assert (TREE / "docs" / name).is_file(), name
    for name in re.findall(r"`(tests/[\w/.]+)`", TEXT):
        assert (TREE / name).exists(), name
    for name in re.findall(r"`(?:images\.)?(\w+) = |`images\.(\w+)`", TEXT):
        assert "".join(name) in ImageSettings.model_fields, name
    assert len(list(fuzz.CORPUS.glob("*.tar"))) > 50
