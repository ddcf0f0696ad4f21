"""Registries as a person configures and asks about them, while the daemon runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.component.cli.person import IMAGE, ended, said
from tests.daemon import Daemon


@pytest.fixture
def files(served: Daemon) -> Iterator[Path]:
    """Where the daemon looks for registries.conf and auth.json; both are gone afterwards."""
    yield served.directory
    for name in ("registries.conf", "auth.json"):
        with contextlib.suppress(FileNotFoundError):
            (served.directory / name).unlink()


def test_an_alias_is_explained_pulled_and_found_without_a_restart(served: Daemon, files: Path) -> None:
    target = f"docker.io/library/{IMAGE}"
    (files / "registries.conf").write_text(f'[aliases]\n"shortcut" = "{target}"\n')
    explained = said(served, "pull", "--explain", "--namespace", "team", "shortcut")
    assert f"shortcut is an alias of {target} ({files}/registries.conf:2)\n" in explained
    assert f"hosts.toml of docker.io decides ({served.certs_dir}/docker.io/hosts.toml:1)\n" in explained
    id_ = said(served, "pull", "-q", "shortcut").strip()
    assert said(served, "rmi", "shortcut").startswith("removed ")
    assert id_.startswith("sha256:")


def test_a_mistake_refuses_pulls_until_it_is_corrected_and_doctor_knows_of_it(
    served: Daemon, files: Path
) -> None:
    (files / "auth.json").write_text('{\n"credStore": "SECRET"}\n')
    status, _, error = ended(served, "pull", IMAGE)
    mistake = f"{files}/auth.json:2: credStore: unknown key; did you mean 'credsStore'?"
    assert (status != 0, mistake in error) == (True, True)
    _, report, _ = ended(served, "doctor")
    assert mistake.partition(": ")[0] in report.replace("\n", "")
    assert "SECRET" not in error + report
    (files / "auth.json").unlink()
    said(served, "pull", "-q", IMAGE)
    assert said(served, "rmi", IMAGE).startswith("removed ")
