"""`crisp exec`: a command in a running container, its streams and its exit status."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from cli import names
from cli.arguments import ClientCertificate, ClientKey, ContainerName, session, trust
from cli.form import note
from cli.session import READ_TIMEOUT
from oci.errors import BadInput, Internal

if TYPE_CHECKING:
    from api.streaming.channels import Wanted
    from cli.names import Target
    from cli.session import Session
    from cli.streams import Trust

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
    stdin: Annotated[bool, typer.Option("--stdin", "-i", help="Give it this command's input.")] = False,
    terminal: Annotated[bool, typer.Option("--tty", "-t", help="Give it a terminal.")] = False,
    timeout: Annotated[
        int, typer.Option("--timeout", min=0, metavar="SECONDS", help="Kill it then; 0 waits for ever.")
    ] = 0,
    client_certificate: ClientCertificate = None,
    client_key: ClientKey = None,
) -> None:
    """Run a command in a container and end with its exit status.

    Without `-i` and `-t` it has no input, and its output is shown when it ends; only then `--timeout` counts.
    """
    from api.proto import cri_pb2
    from api.streaming.channels import Wanted

    here = session(context)
    target = names.find_container(name, here.inventory())
    if stdin or terminal:
        if timeout:
            raise BadInput("--timeout: not together with -i or -t; end the command itself")
        wanted = Wanted(stdin=stdin, stdout=True, stderr=not terminal, tty=terminal)
        _stream(here, target, command, wanted, trust(here, client_certificate, client_key))
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


def _stream(here: Session, target: Target, command: list[str], wanted: Wanted, trust: Trust) -> NoReturn:
    from api.proto import cri_pb2
    from api.streaming.channels import Failed
    from cli.streams import converse

    request = cri_pb2.ExecRequest(
        container_id=target.id,
        cmd=command,
        tty=wanted.tty,
        stdin=wanted.stdin,
        stdout=wanted.stdout,
        stderr=wanted.stderr,
    )
    url = here.realm(target.realm).runtime.Exec(request, timeout=READ_TIMEOUT).url
    outcome = asyncio.run(converse(url, wanted, trust=trust))
    if outcome is None or isinstance(outcome, Failed):
        raise Internal(outcome.message if outcome is not None else "detached")
    raise typer.Exit((outcome.code or 0) & 0xFF)
