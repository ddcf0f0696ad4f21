"""`crisp doctor` and `crisp handlers`: what is wrong here, and what to do about it."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import completion, exits
from cli.arguments import Output, session
from cli.form import Form, note, say_json, say_table
from cli.session import Session
from oci.errors import Busy

_LOOK_TIMEOUT = 60.0  # seconds: the daemon starts programs to look at them
_TRIAL_TIMEOUT = 600.0  # seconds: each verb of a runtime that hangs is given up by the daemon after its limit


def register(app: typer.Typer) -> None:
    app.command()(doctor)
    app.command()(handlers)


def doctor(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", "-a", help="What is well, too.")] = False,
    handler: Annotated[
        str,
        typer.Option(
            "--handler",
            metavar="NAME",
            help="Run a pod of this handler instead, verb by verb, and remove it again.",
            autocompletion=completion.handlers,
        ),
    ] = "",
    output: Output = Form.TABLE,
) -> None:
    """Check kernel, cgroups, capabilities, binaries, network and state; with --handler, one runtime by a pod.

    Ends with 1 if pods cannot run.
    """
    from api.proto import admin_pb2

    here = session(context)
    try:
        limit = _TRIAL_TIMEOUT if handler else _LOOK_TIMEOUT
        found = here.admin.Doctor(admin_pb2.DoctorRequest(handler=handler), timeout=limit).checks
    except Busy:
        _without_daemon(here)
        raise
    words = {admin_pb2.OK: "ok", admin_pb2.WARNING: "warning", admin_pb2.PROBLEM: "problem"}
    if output is Form.JSON:
        say_json(
            [
                {
                    "area": one.area,
                    "name": one.name,
                    "verdict": words[one.verdict],
                    "found": one.found,
                    "advice": one.advice,
                }
                for one in found
            ]
        )
    else:
        shown = [one for one in found if everything or handler or one.verdict != admin_pb2.OK]
        if shown:
            say_table(
                ("VERDICT", "AREA", "CHECK", "FOUND", "WHAT TO DO"),
                [[words[one.verdict], one.area, one.name, one.found, one.advice or "-"] for one in shown],
            )
        count = {word: sum(words[one.verdict] == word for one in found) for word in words.values()}
        note(
            f"{len(found)} checks: {count['ok']} ok, {count['warning']} warnings, {count['problem']} problems"
            + ("" if everything or handler or not count["ok"] else " (-a shows all)")
        )
    bad = any(one.verdict == admin_pb2.PROBLEM for one in found)
    raise typer.Exit(exits.FAILED if bad else exits.OK)


def _without_daemon(here: Session) -> None:
    """What can keep a daemon from starting and is to be seen from outside."""
    from config.loading import ConfigError, load

    config = here.places.config
    try:
        loaded = load(config)
    except ConfigError as error:
        for problem in error.problems:
            note(str(problem))
        note("the configuration has mistakes: crispd refuses to start until they are corrected")
        return
    read = ", ".join(str(file) for file in loaded.files) or f"none ({config} does not exist)"
    note(f"configuration files: {read}; no mistakes")


def handlers(context: typer.Context, output: Output = Form.TABLE) -> None:
    """List the runtimes that a RuntimeClass can name, and why one cannot be used."""
    from api.proto import admin_pb2

    found = session(context).admin.Handlers(admin_pb2.HandlersRequest(), timeout=_LOOK_TIMEOUT)
    if output is Form.JSON:
        say_json(
            {
                "default_origin": found.default_origin,
                "handlers": [
                    {
                        "name": one.name,
                        "kind": one.kind,
                        "binary": one.binary,
                        "version": one.version,
                        "default": one.is_default,
                        "problem": one.problem,
                        "origin": one.origin,
                        "features": dict(one.features),
                        "pods": one.pods,
                        "notes": list(one.notes),
                        "root": one.root,
                        "former": one.former,
                    }
                    for one in found.handlers
                ],
            }
        )
        return
    say_table(
        ("HANDLER", "DEFAULT", "KIND", "VERSION", "BINARY", "PODS", "FROM", "PROBLEM OR NOTES"),
        [
            [
                one.name,
                _default(one.is_default, found.default_origin),
                one.kind or "-",
                one.version or "-",
                one.binary or "-",
                str(one.pods),
                "no longer configured so" if one.former else one.origin,
                one.problem or "; ".join(one.notes) or "-",
            ]
            for one in found.handlers
        ],
    )


def _default(is_default: bool, origin: str) -> str:
    if not is_default:
        return ""
    return f"yes, {origin}" if origin else "yes"
