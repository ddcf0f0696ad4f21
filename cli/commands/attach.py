"""`crisp attach`: this terminal at a running container's own streams."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from cli import detach, names
from cli.arguments import ClientCertificate, ClientKey, ContainerName, session, trust
from cli.form import note
from cli.session import READ_TIMEOUT, json_text
from oci.errors import Internal


def register(app: typer.Typer) -> None:
    app.command("attach")(attach)


def attach(
    context: typer.Context,
    name: ContainerName,
    no_stdin: Annotated[bool, typer.Option("--no-stdin", help="Only look.")] = False,
    detach_keys: Annotated[
        str, typer.Option("--detach-keys", metavar="KEYS", help="End this, and leave the container running.")
    ] = detach.DEFAULT,
    client_certificate: ClientCertificate = None,
    client_key: ClientKey = None,
) -> None:
    """See what a container writes from now on, and type into it, until it ends or the detach keys are typed.

    The detach keys work at a terminal; elsewhere Ctrl-C leaves too.
    """
    from api.proto import cri_pb2
    from api.streaming.channels import Failed, Wanted
    from cli.streams import converse

    keys = detach.parse_keys(detach_keys)
    here = session(context)
    trusted = trust(here, client_certificate, client_key)
    target = names.find_container(name, here.inventory())
    runtime = here.realm(target.realm).runtime
    asked = cri_pb2.ContainerStatusRequest(container_id=target.id, verbose=True)
    described: Any = json_text(runtime.ContainerStatus(asked, timeout=READ_TIMEOUT).info.get("info", ""))
    made = described.get("config", {}) if isinstance(described, dict) else {}
    terminal = bool(made.get("tty"))
    wanted = Wanted(
        stdin=bool(made.get("stdin")) and not no_stdin, stdout=True, stderr=not terminal, tty=terminal
    )
    request = cri_pb2.AttachRequest(
        container_id=target.id,
        tty=wanted.tty,
        stdin=wanted.stdin,
        stdout=wanted.stdout,
        stderr=wanted.stderr,
    )
    url = runtime.Attach(request, timeout=READ_TIMEOUT).url
    outcome = asyncio.run(converse(url, wanted, trust=trusted, detach=keys))
    if outcome is None:
        note(f"{target.name} goes on")
    elif isinstance(outcome, Failed):
        raise Internal(outcome.message)
