"""Cases of the registries' resolver: files, a name, and what is explained; `registries/*.txt` holds them.

    python -m tests.golden.registries

writes the explanations anew; the difference is then read by a person.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from oci.errors import BadInput
from oci.registries.document import ConfigFile
from oci.registries.hosts_toml import HostDirectory
from oci.registries.resolver import RegistryFiles, check, decide, explain
from oci.registry_auth import Credentials

CASES = Path(__file__).with_name("registries")


@dataclass(slots=True, kw_only=True)
class Case:
    """`files` by path: /c and /d are the two certs.d; a text of None is a file that cannot be read."""

    title: str
    image: str = ""
    files: dict[str, str | None] = field(default_factory=dict)
    request: Credentials | None = None
    source: list[str] = field(default_factory=list)  # as written, without the explanation
    explained: list[str] = field(default_factory=list)

    def run(self) -> list[str]:
        """What is said today."""
        try:
            decision = decide(self.image, self._files(), self.request)
            lines = list(explain(decision))
            check(decision)
        except BadInput as failure:
            return [f"refused: {failure}"]
        return lines

    def _files(self) -> RegistryFiles:
        directories: dict[str, dict[str, str | None]] = {}
        for path, text in self.files.items():
            if path.startswith(("/c/", "/d/")):
                directory, _, name = path.rpartition("/")
                directories.setdefault(directory, {})[name] = text
        daemon = self._file("/daemon.json")
        auth = (self._file("/namespace.json"), self._file("/auth.json"))
        conf = (self._file(path) for path in sorted(self.files) if path.startswith("/registries.conf"))
        return RegistryFiles(
            directories=tuple(
                HostDirectory(
                    path=path,
                    names=tuple(sorted(names)),
                    hosts_toml=self._file(f"{path}/hosts.toml") if "hosts.toml" in names else None,
                )
                for path, names in sorted(directories.items())
            ),
            registries_conf=tuple(file for file in conf if file is not None),
            daemon_json=daemon,
            auth=tuple(file for file in auth if file is not None),
        )

    def _file(self, path: str) -> ConfigFile | None:
        if path not in self.files:
            return None
        text = self.files[path]
        return ConfigFile(path=path, problem="permission denied") if text is None else _of(path, text)


def _of(path: str, text: str) -> ConfigFile:
    return ConfigFile(path=path, text=text)


def read(path: Path) -> tuple[str, list[Case]]:
    """The words before the first case, and the cases."""
    head, *parts = re.split(r"^=== ", path.read_text(), flags=re.MULTILINE)
    return head, [_case(part) for part in parts]


def _case(part: str) -> Case:
    title, *rest = re.split(r"^--- ", part.rstrip("\n"), flags=re.MULTILINE)
    case = Case(title=title.strip())
    for section in rest:
        words, _, body = section.partition("\n")
        verb, _, argument = words.partition(" ")
        match verb:
            case "file":
                case.files[argument] = body
            case "unreadable":
                case.files[argument] = None
            case "request":
                case.request = Credentials(**dict(word.split("=", 1) for word in argument.split()))
            case "pull":
                case.image = argument
            case "explained":
                case.explained = body.splitlines()
                continue
            case _:
                raise ValueError(f"{title}: {verb}")
        case.source.append(f"--- {section.rstrip()}")
    return case


def write(path: Path) -> None:
    head, cases = read(path)
    text = [head.rstrip("\n"), ""]
    for case in cases:
        text += [f"=== {case.title}", *case.source, "--- explained", *case.run(), ""]
    path.write_text("\n".join(text))


if __name__ == "__main__":
    for cases in sorted(CASES.glob("*.txt")):
        write(cases)
