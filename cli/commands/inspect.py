"""`crisp inspect`: everything that is remembered about one object."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import names
from cli.arguments import Name, session
from cli.form import say_json
from cli.session import READ_TIMEOUT, json_text
from oci.errors import Absent, BadInput


def register(app: typer.Typer) -> None:
    app.command()(inspect)


def inspect(
    context: typer.Context,
    name: Name,
    spec: Annotated[bool, typer.Option("--spec", help="Only the OCI runtime configuration.")] = False,
    request: Annotated[bool, typer.Option("--request", help="Only what was asked for.")] = False,
) -> None:
    """Show everything about a pod or container, as JSON."""
    from api.proto import admin_pb2

    if spec and request:
        raise BadInput("--spec and --request: choose one")
    here = session(context)
    target = names.find(name, here.inventory())
    found = here.admin.Inspect(admin_pb2.InspectRequest(id=target.id), timeout=READ_TIMEOUT)
    if spec and not found.spec:
        why = "a pod has none, name its container" if found.kind == "pod" else "it was never started"
        raise Absent(f"{target.name} has no runtime configuration: {why}")
    if spec:
        say_json(json_text(found.spec))
    elif request:
        say_json(json_text(found.request))
    else:
        say_json(
            {
                "kind": found.kind,
                "name": target.name,
                "id": found.id,
                "realm": found.realm,
                "directory": found.directory,
                "record": json_text(found.record),
                "request": json_text(found.request),
                "spec": json_text(found.spec),
            }
        )
