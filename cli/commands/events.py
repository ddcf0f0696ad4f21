"""`crisp events`: changes as they happen."""

from __future__ import annotations

import sys

import typer

from cli.arguments import Output, Realm, session
from cli.form import Form, rfc3339, short, visible
from cli.inventory import Inventory
from oci.errors import Busy


def register(app: typer.Typer) -> None:
    app.command()(events)


def events(context: typer.Context, realm: Realm = None, output: Output = Form.TABLE) -> None:
    """Follow changes of pods, containers and images, until Ctrl-C. With -o json one object a line."""
    import json

    from api.proto import admin_pb2

    here = session(context)
    inventory = here.inventory()
    for event in here.admin.Events(admin_pb2.EventsRequest(realm=realm or "")):
        name = _name(inventory, event.id)
        if not name and event.kind != "image":
            inventory = here.inventory()
            name = _name(inventory, event.id)
        if output is Form.JSON:
            row = {
                "sequence": event.sequence,
                "time": rfc3339(event.time),
                "kind": event.kind,
                "realm": event.realm,
                "id": event.id,
                "name": name or None,
                "state": event.state,
            }
            sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
        else:
            cells = (rfc3339(event.time) or "-", event.kind, event.state, name or "-", short(event.id))
            sys.stdout.write("  ".join(visible(cell) for cell in cells) + "\n")
        sys.stdout.flush()
    raise Busy("the daemon ended the stream of events: it stops or restarts")


def _name(inventory: Inventory, id_: str) -> str:
    if id_ in inventory.pods:
        return inventory.pods[id_].path
    container = inventory.containers.get(id_)
    return inventory.name_of(container) if container else ""
