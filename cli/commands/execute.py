"""`crisp exec`: a command in a running container, its output and its exit status."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cli import names
from cli.arguments import ContainerName, session
from cli.form import note

EVERYTHING_AFTER = {"allow_interspersed_args": False, "ignore_unknown_options": False}
"""Options end at the first argument: what follows belongs to the command in the container."""


def register(app: typer.Typer) -> None:
    app.command("exec", context_settings=EVERYTHING_AFTER)(execute)


def execute(
    context: typer.Context,
    name: ContainerName,
    command: Annotated[
        list[str], typer.Argument(metavar="COMMAND...", help="Run as it is, without a shell.")
    ],
    timeout: Annotated[
        int, typer.Option("--timeout", "-t", min=0, metavar="SECONDS", help="Kill it then; 0 waits for ever.")
    ] = 0,
) -> None:
    """Run a command in a container, show its output when it ends, and end with its exit status.

    It has no terminal and no input.
    """
    from api.proto import cri_pb2

    here = session(context)
    target = names.find_container(name, here.inventory())
    done = here.realm(target.realm).runtime.ExecSync(
        cri_pb2.ExecSyncRequest(container_id=target.id, cmd=command, timeout=timeout),
        timeout=timeout + 30 if timeout else None,
    )
    sys.stdout.flush()
    sys.stdout.buffer.write(done.stdout)
    sys.stdout.buffer.flush()
    sys.stderr.buffer.write(done.stderr)
    sys.stderr.buffer.flush()
    if done.exit_code < 0:
        note(f"{target.name}: the command was killed")
    raise typer.Exit(done.exit_code & 0xFF)
