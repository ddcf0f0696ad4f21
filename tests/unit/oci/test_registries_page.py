"""docs/registries.md: every example is what the resolver says of the files that stand before it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from oci.registries.resolver import decide, explain
from shim.images.registry_files import read_files
from shim.images.settings import RegistryPlaces

PAGE = Path(__file__).parents[3] / "docs/registries.md"
SECTIONS = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]
FILE = re.compile(r"^```(?:toml|json)\n# (\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
EXAMPLE = re.compile(r"^```console\n\$ crisp pull --explain (\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
EXAMPLES = [(section, name, said) for section in SECTIONS for name, said in EXAMPLE.findall(section)]


@pytest.mark.parametrize(
    ("section", "name", "said"), EXAMPLES, ids=[f"{s.splitlines()[0]}: {name}" for s, name, _ in EXAMPLES]
)
def test_an_example_says_what_is_so(section: str, name: str, said: str, tmp_path: Path) -> None:
    for path, text in FILE.findall(section):
        file = tmp_path / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        # the line with the file's name is one of the file where it can be: in TOML it is a comment
        file.write_text(text if file.suffix == ".json" else f"# {path}\n{text}")
    etc = tmp_path / "etc"
    places = RegistryPlaces(
        directories=(etc / "containerd/certs.d",),
        registries_conf=etc / "containers/registries.conf",
        daemon_json=etc / "docker/daemon.json",
        auth_files=(etc / "crisp/auth.json",),
    )
    lines = explain(decide(name, read_files(places, name)))
    assert "\n".join(lines).replace(str(tmp_path), "") + "\n" == said


def test_every_dialect_has_an_example() -> None:
    with_files = [section.splitlines()[0] for section in SECTIONS if FILE.search(section)]
    assert with_files == ["Coming from containerd", "Coming from CRI-O or Podman", "Coming from Docker",
                          "Credentials"]  # fmt: skip
    assert len(EXAMPLES) == 8
