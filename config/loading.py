"""From files to settings: the main file, then the drop-ins in name order, each key remembering its origin.

Owns reading and merging. Tables are merged key by key; any other value, arrays too, is replaced by the
later file's. All mistakes of all files are reported together.
"""

from __future__ import annotations

import io
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from config.models import Settings
from config.positions import KeyPath, key_lines
from config.problems import Problem, dotted, translate

MAIN_FILE = Path("/etc/crisp/config.toml")
DROP_IN_DIRECTORY = "conf.d"
MAX_FILE_SIZE = 1 << 20  # bytes; a configuration that is larger is some other file


class ConfigError(Exception):
    """The files hold mistakes; all of them are in `problems`, and in the text one a line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a value was written."""

    file: Path
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSettings:
    """Settings and where they came from. `origins` holds every key and table that was written."""

    settings: Settings = field(default_factory=Settings)
    origins: Mapping[KeyPath, Origin] = field(default_factory=dict)
    files: tuple[Path, ...] = ()  # that were read, in the order of reading
    looked_for: tuple[Path, ...] = ()  # the main file and the drop-in directory
    broken_handlers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by name: what is wrong

    def origin(self, *path: str) -> Origin | None:
        """Of a key or table; None for a default."""
        return self.origins.get(path)

    def describe_origin(self, *path: str) -> str:
        """ "default", or "FILE:LINE"."""
        origin = self.origin(*path)
        return "default" if origin is None else str(origin)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    file: Path
    content: Mapping[str, Any]
    lines: Mapping[KeyPath, int]

    def line(self, path: KeyPath) -> int:
        """Of the key, or of the innermost table or array around it that is written."""
        return next(
            (self.lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self.lines), 0
        )


def load(
    main: Path = MAIN_FILE,
    *,
    drop_ins: Path | None = None,
    required: bool = False,
    spare_handlers: bool = False,
) -> LoadedSettings:
    """Read the main file and `conf.d/*.toml` beside it (or `drop_ins`). Blocking.

    A missing main file is an empty one unless `required`. With `spare_handlers`, mistakes in a handler's
    table disable only that handler: it is left out and told in `broken_handlers`. Raises ConfigError for any
    other.
    """
    directory = main.parent / DROP_IN_DIRECTORY if drop_ins is None else drop_ins
    problems: list[Problem] = []
    documents = []
    for file in (main, *_drop_in_files(directory, problems)):
        document = _read(file, problems, may_be_absent=file == main and not required)
        if document is not None:
            documents.append(document)
    return _merge(documents, problems, looked_for=(main, directory), spare_handlers=spare_handlers)


def check(file: Path) -> tuple[Problem, ...]:
    """The mistakes of one file by itself, for `crisp config check`; empty if there are none. Blocking."""
    problems: list[Problem] = []
    document = _read(file, problems, may_be_absent=False)
    try:
        _merge([document] if document else [], problems, looked_for=(file,))
    except ConfigError as refused:
        return refused.problems
    return ()


def _drop_in_files(directory: Path, problems: list[Problem]) -> list[Path]:
    try:
        names = [entry.name for entry in directory.iterdir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(Problem(file=directory, message=_cannot_read(error)))
        return []
    # hidden files are what editors and package managers leave half-written
    return [directory / name for name in sorted(names) if name.endswith(".toml") and not name.startswith(".")]


def _read(file: Path, problems: list[Problem], *, may_be_absent: bool) -> _Document | None:
    def refuse(message: str, line: int = 0) -> None:
        problems.append(Problem(file=file, line=line, message=message))

    try:
        # not blocking: a fifo of that name must not hold the daemon's start
        with io.BufferedReader(
            io.FileIO(file, opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK))
        ) as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                refuse("cannot be read: it is not a regular file")
                return None
            raw = stream.read(MAX_FILE_SIZE + 1)
    except FileNotFoundError as error:
        if not may_be_absent or file.is_symlink():
            refuse(_cannot_read(error))
        return None
    except OSError as error:
        refuse(_cannot_read(error))
        return None
    if len(raw) > MAX_FILE_SIZE:
        refuse(f"is larger than {MAX_FILE_SIZE} bytes, which no configuration is")
        return None
    try:
        text = raw.decode()
        content = tomllib.loads(text)
        document = _Document(file=file, content=content, lines=key_lines(text))
        problems += _problems_of(document)
        return document
    except UnicodeDecodeError as error:
        refuse(f"is not UTF-8: {error.reason}", raw.count(b"\n", 0, error.start) + 1)
    except tomllib.TOMLDecodeError as error:
        refuse(*_syntax_error(str(error), text))
    except RecursionError:
        refuse("nests arrays or tables too deeply")
    return None


def _cannot_read(error: OSError) -> str:
    return f"cannot be read: {error.strerror} (errno {error.errno})"


def _syntax_error(message: str, text: str) -> tuple[str, int]:
    place = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", message, re.DOTALL)
    if place is None:
        return f"is not TOML: {message}", 0
    said = place[1][:1].lower() + place[1][1:]
    if place[2] is None:
        return f"is not TOML: {said} at the end of the file", text.count("\n") + 1
    return f"is not TOML: {said} at column {place[3]}", int(place[2])


def _merge(
    documents: list[_Document],
    problems: list[Problem],
    *,
    looked_for: tuple[Path, ...],
    spare_handlers: bool = False,
) -> LoadedSettings:
    merged: dict[str, Any] = {}
    origins: dict[KeyPath, Origin] = {}
    for document in documents:
        _merge_table(merged, document.content, (), document, origins)
    settings = None
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        for path, message in translate(error, between_keys=True):
            # a key that is not written itself breaks the rule by what stands around it
            around = (path[:end] for end in range(len(path), 0, -1) if path[:end] in origins)
            origin = origins.get(next(around, ()), Origin(file=looked_for[0], line=0))
            problems.append(_problem(origin.file, origin.line, path, message))
    broken: dict[str, tuple[str, ...]] = {}
    if spare_handlers and problems and all(problem.handler for problem in problems):
        for problem in problems:
            if str(problem) not in broken.get(problem.handler, ()):  # each file is judged alone and with all
                broken[problem.handler] = (*broken.get(problem.handler, ()), str(problem))
        problems = []
        sound = {name: table for name, table in merged["handlers"].items() if name not in broken}
        settings = Settings.model_validate({**merged, "handlers": sound})
    if problems or settings is None:
        order = {
            file: place for place, file in enumerate(dict.fromkeys(problem.file for problem in problems))
        }
        raise ConfigError(sorted(problems, key=lambda problem: (order[problem.file], problem.line)))
    return LoadedSettings(
        settings=settings,
        origins=origins,
        files=tuple(document.file for document in documents),
        looked_for=looked_for,
        broken_handlers=broken,
    )


def _problem(file: Path, line: int, path: KeyPath, message: str) -> Problem:
    handler = str(path[1]) if path[:1] == ("handlers",) and len(path) > 1 else ""
    return Problem(file=file, line=line, key=dotted(path), message=message, handler=handler)


def _problems_of(document: _Document) -> Iterator[Problem]:
    """Each file is judged by itself, so that a mistake is seen although a later file replaces the value."""
    try:
        Settings.model_validate(document.content)
    except ValidationError as error:
        for path, message in translate(error, between_keys=False):
            yield _problem(document.file, document.line(path), path, message)


def _merge_table(
    into: dict[str, Any],
    table: Mapping[str, Any],
    path: KeyPath,
    document: _Document,
    origins: dict[KeyPath, Origin],
) -> None:
    for key, value in table.items():
        inner = (*path, key)
        old = into.get(key)
        if isinstance(value, dict):
            if not isinstance(old, dict):
                origins.pop(inner, None)
                into[key] = {}
            origins.setdefault(inner, Origin(file=document.file, line=document.line(inner)))
            _merge_table(into[key], value, inner, document, origins)
        else:
            for longer in [written for written in origins if written[: len(inner)] == inner]:
                del origins[longer]
            into[key] = value
            origins[inner] = Origin(file=document.file, line=document.line(inner))
