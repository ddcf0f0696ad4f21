"""`crisp config`: what is in force and where that was said, and whether a file may be put into force."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.arguments import Output, session
from cli.form import Form, note, say_json, say_table
from cli.session import READ_TIMEOUT, Session
from oci.errors import Absent, Busy, CrispError

Rows = list[tuple[str, str, str]]  # key, value in TOML's notation, origin

config = typer.Typer(
    help="The daemon's configuration: show what is in force, check a file.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    app.add_typer(config, name="config")


@config.command()
def show(
    context: typer.Context,
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY...]", help="Only these, or all below them.")
    ] = None,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
    files: Annotated[
        bool, typer.Option("--files", help="What the files say now, which the daemon reads at its start.")
    ] = False,
    output: Output = Form.TABLE,
) -> None:
    """Show every setting that is in force; without a daemon, what its files say."""
    rows = _chosen(_from_files(session(context)) if files else _effective(session(context)), keys or [])
    if output is Form.JSON:
        say_json([{"key": key, "value": value, "origin": source} for key, value, source in rows])
    elif origin:
        say_table(("KEY", "ORIGIN", "VALUE"), [(key, source, value) for key, value, source in rows])
    else:
        for key, value, _ in rows:
            print(f"{key} = {value}" if value != "unset" else f"# {key} is unset")


@config.command()
def check(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Default: all files that the daemon reads.")
    ] = None,
) -> None:
    """Check a configuration file without a daemon; says every mistake with its line."""
    from config import loading

    if file is None:
        main = session(context).places.config
        try:
            loaded = loading.load(main)
        except loading.ConfigError as error:
            problems: tuple[Any, ...] = error.problems
        else:
            problems = ()
            read = ", ".join(map(str, loaded.files)) or f"{main} does not exist, every default is in force"
            print(f"no mistakes: {read}")
    else:
        if not file.exists():
            raise Absent(f"{file} does not exist")
        problems = loading.check(file)
        if not problems:
            print(f"no mistakes: {file}")
    for problem in problems:
        print(problem)
    if problems:
        raise typer.Exit(1)


def _effective(here: Session) -> Rows:
    from api.proto import admin_pb2

    try:
        found = here.admin.EffectiveConfig(admin_pb2.EffectiveConfigRequest(), timeout=READ_TIMEOUT)
    except Busy as error:
        note(f"{str(error).splitlines()[0]}; this is what its files say")
        return _from_files(here)
    return [(one.key, one.value, one.origin) for one in found.settings]


def _from_files(here: Session) -> Rows:
    from config.effective import explain
    from config.loading import ConfigError, load

    try:
        loaded = load(here.places.config)
    except ConfigError as error:
        raise CrispError(str(error)) from error
    return [(row.key, row.value, row.origin) for row in explain(loaded)]


def _chosen(rows: Rows, keys: list[str]) -> Rows:
    """The rows of those keys and of what is below them; all without keys."""
    for key in keys:
        if not any(_below(row[0], key) for row in rows):
            raise Absent(f"there is no setting {key!r}; `crisp config show` lists all")
    return [row for row in rows if not keys or any(_below(row[0], key) for key in keys)]


def _below(key: str, top: str) -> bool:
    return key == top or key.startswith((f"{top}.", f"{top}["))
