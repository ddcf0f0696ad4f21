"""The lock files answer for pyproject.toml: who installs from them gets what it asks for, checked by hash."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

TREE = Path(__file__).resolve().parents[2]
PRODUCT, DEVELOPMENT = "requirements.lock", "requirements-dev.lock"


def locked(name: str) -> dict[str, tuple[Requirement, int]]:
    """Each pinned package of a lock file with the number of its hashes."""
    joined = (TREE / name).read_text().replace("\\\n", " ")
    pins: dict[str, tuple[Requirement, int]] = {}
    for line in joined.splitlines():
        text, _, hashes = line.partition("--hash=")
        requirement = Requirement(text.strip())
        pins[canonicalize_name(requirement.name)] = (
            requirement,
            len(re.findall(r"sha256:[0-9a-f]{64}", hashes)),
        )
    return pins


def wanted(name: str) -> list[Requirement]:
    project = tomllib.loads((TREE / "pyproject.toml").read_text())
    texts = project["build-system"]["requires"] + project["project"]["dependencies"]
    if name == DEVELOPMENT:
        texts = texts + project["project"]["optional-dependencies"]["dev"]
    return [Requirement(text) for text in texts]


def pinned_version(requirement: Requirement) -> Version:
    (specifier,) = requirement.specifier
    assert specifier.operator == "==", f"{requirement}: not pinned"
    return Version(specifier.version)


@pytest.mark.parametrize("name", [PRODUCT, DEVELOPMENT])
def test_every_requirement_of_pyproject_is_pinned_within_its_range(name: str) -> None:
    pins = locked(name)
    unmet = []
    for requirement in wanted(name):
        pin = pins.get(canonicalize_name(requirement.name))
        if pin is None or pinned_version(pin[0]) not in requirement.specifier:
            unmet.append(f"{requirement}: {pin[0] if pin else 'absent'}")
    assert unmet == [], "run deploy/lock.sh"


@pytest.mark.parametrize("name", [PRODUCT, DEVELOPMENT])
def test_every_pin_has_hashes(name: str) -> None:
    assert [str(requirement) for requirement, hashes in locked(name).values() if not hashes] == []


def test_the_tests_run_with_the_product_s_own_versions() -> None:
    product, development = locked(PRODUCT), locked(DEVELOPMENT)
    assert {name: str(pin) for name, (pin, _) in product.items()} == {
        name: str(development[name][0]) for name in product
    }


@pytest.mark.parametrize("name", [PRODUCT, DEVELOPMENT])
def test_no_index_is_named(name: str) -> None:
    assert [line for line in (TREE / name).read_text().splitlines() if "://" in line or "index" in line] == []
