"""Makes docs/configuration.md from the models: `python -m config.reference docs/configuration.md`.

Owns the page's words that are not in the models. A test holds the page equal to what this makes.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from config.effective import toml_value
from config.loading import DROP_IN_DIRECTORY, MAIN_FILE
from config.models import Settings
from config.problems import table_of
from config.table import Table
from config.units import DURATION_UNITS, SIZE_UNITS, Bytes, Seconds

_INTRODUCTION = f"""\
# Configuration

<!-- Made by `python -m config.reference docs/configuration.md`: edit the models in config/, not this. -->

`crispd` reads `{MAIN_FILE}`, then `{MAIN_FILE.parent / DROP_IN_DIRECTORY}/*.toml` in the order of
their names. Every key is optional, and so is every file. Tables are merged key by key; any other value,
an array too, is replaced by that of a later file. Hidden files are passed over.

- A duration is text with a unit ({DURATION_UNITS}): `"30s"`, `"500ms"`, `"1m30s"`.
- A size is text with a unit ({SIZE_UNITS}): `"64MiB"`.
- A number without a unit is refused where a duration or a size belongs, for it may mean anything.
- Paths are absolute. Shell patterns know `*`, `?` and `[...]`.

A mistake stops the daemon's start (in a handler's table it disables that handler alone), and all mistakes of
all files are told at once, each with its file, line and key and, for an unknown key, the nearest known one:

```
/etc/crisp/config.toml:7: log.levl: unknown key; did you mean 'level'?
```

`crisp config check FILE` judges a file without a daemon; `crisp config show --origin` prints every value
that is in force and the file and line that it came from. A change of `[handlers]`, `[handler_policy]` or
`default_handler` takes effect at once, any other at the daemon's next start; containers run on meanwhile.
"""

_EXAMPLE = """\
## A complete file

Every key with its default; keys that are unset by default show an example. `NAME` stands for a name of
your choice.
"""

_COMMENT = textwrap.TextWrapper(106, initial_indent="## ", subsequent_indent="## ", break_on_hyphens=False)
_EXAMPLE_VALUES = {
    "address": '"127.0.0.1"',
    "policy": '"/etc/containers/policy.json"',
    "listen": '["/run/crisp/crisp.sock"]',
    "run_socket": '"/run/crisp/run.sock"',
    "admin_socket": '"/run/crisp/admin.sock"',
    "binary": '"/usr/local/bin/NAME"',
    "runtime_type": '"io.containerd.runc.v2"',
    "runtime_binary": '"/usr/bin/crun"',
    "config_path": '"/etc/crisp/NAME.toml"',
    "root": '"/run/crisp/handlers/NAME"',
    "monitor": '"/usr/bin/conmon"',
    "cache_dir": '"/var/lib/crisp/cni"',
    "namespaced_auth_dir": '"/etc/crio/auth"',
    "init_binary": '"/usr/bin/catatonit"',
    "default_handler": '"runc"',
    "base_spec": '"/etc/crisp/base.json"',
    "seccomp_profile": '"/etc/crisp/seccomp.json"',
    "host": '"runc"',
    "untrusted": '"kata"',
    "certificate": '"/etc/crisp/streaming.crt"',
    "key": '"/etc/crisp/streaming.key"',
    "client_ca": '"/etc/crisp/clients.crt"',
    "cadvisor_socket": '"/var/run/crio/crio.sock"',
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Section:
    name: str  # "" for the top of the file, "handlers.NAME"
    table: type[Table]


def render() -> str:
    """The whole page."""
    parts = [_INTRODUCTION]
    for section in _sections(Settings, ""):
        title = f"`[{section.name}]`" if section.name else "Top of the file"
        parts.append(
            f"## {title}\n\n{inspect.cleandoc(section.table.__doc__ or '')}\n\n{_key_table(section)}"
        )
    parts.append(f"{_EXAMPLE}\n```toml\n{example()}```\n")
    return "\n".join(parts)


def example() -> str:
    """A configuration file with every key, commented out, at its default."""
    return "\n".join(_example_table(section) for section in _sections(Settings, "") if _stands_alone(section))


def main() -> None:
    Path(sys.argv[1]).write_text(render(), encoding="utf-8")


def _sections(table: type[Table], name: str) -> Iterator[_Section]:
    yield _Section(name=name, table=table)
    for key, field in table.model_fields.items():
        inner, named = table_of(field.annotation)
        if inner is not None:
            inner_name = f"{name}.{key}" if name else key
            yield from _sections(inner, f"{inner_name}.NAME" if named else inner_name)


def _stands_alone(section: _Section) -> bool:
    """Tables by name below the first level are written inline, as values of their key."""
    return section.name.count(".") < 2


def _keys(section: _Section) -> Iterator[tuple[str, FieldInfo]]:
    """The keys that are values: not the tables that have a section of their own in a file."""
    for key, field in section.table.model_fields.items():
        inner, named = table_of(field.annotation)
        if inner is None or (named and section.name):
            yield key, field


def _key_table(section: _Section) -> str:
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key, field in _keys(section):
        cells = (f"`{key}`", _type(field), _default_cell(field), field.description or "")
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _default_cell(field: FieldInfo) -> str:
    shown = _default(field)
    return "unset" if shown is None else f"`{shown}`"


def _default(field: FieldInfo) -> str | None:
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "shown" in extra:
        return str(extra["shown"])
    return None if field.default is None else toml_value(field.default)


def _type(field: FieldInfo) -> str:
    bounds = [f"at least {item.ge}" for item in field.metadata if hasattr(item, "ge")]
    bounds += [f"at most {item.le}" for item in field.metadata if hasattr(item, "le")]
    return ", ".join((_type_name(field.annotation), *bounds))


def _type_name(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type_name(arguments[0])
    if origin in (types.UnionType, typing.Union):
        return _type_name(next(argument for argument in arguments if argument is not types.NoneType))
    if origin is tuple:
        return f"array of {_type_name(arguments[0])}s".replace("texts", "text")
    if origin is dict:
        return "tables by name"
    if origin is typing.Literal:
        return ", ".join(f"`{toml_value(choice)}`" for choice in arguments)
    return _TYPE_NAMES[annotation]


_TYPE_NAMES = {
    Seconds: "duration", Bytes: "size", Path: "path", str: "text", bool: "boolean", int: "integer",
}  # fmt: skip


def _example_table(section: _Section) -> str:
    lines = [f"# [{section.name}]"] if section.name else []
    for key, field in _keys(section):
        lines += _COMMENT.wrap(field.description or "")
        lines += [f"# {key} = {_EXAMPLE_VALUES.get(key) or _default(field)}", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
