"""`crisp status`: is the daemon well, and what does it carry."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import typer

from cli import exits
from cli.arguments import Output, session
from cli.form import Form, age, pairs, rfc3339, say_json, size
from cli.inventory import Inventory
from cli.session import READ_TIMEOUT, Session

if TYPE_CHECKING:
    from api.proto import admin_pb2, cri_pb2


def register(app: typer.Typer) -> None:
    app.command()(status)


def status(context: typer.Context, output: Output = Form.TABLE) -> None:
    """Show the daemon's condition. Ends with 1 unless runtime and network are ready."""
    from api.proto import cri_pb2

    here = session(context)
    daemon = here.daemon
    conditions = here.any_realm.runtime.Status(
        cri_pb2.StatusRequest(), timeout=READ_TIMEOUT
    ).status.conditions
    inventory = here.inventory()
    images = here.any_realm.image.ListImages(cri_pb2.ListImagesRequest(), timeout=READ_TIMEOUT).images
    pulls = [one for one in _pulls(here) if one.progress.stage != "done"]
    if output is Form.JSON:
        say_json(
            {
                "version": daemon.version,
                "pid": daemon.pid,
                "started_at": rfc3339(daemon.started_at),
                "ready_at": rfc3339(daemon.ready_at),
                "resident_bytes": daemon.resident_bytes,
                "state_directory": daemon.state_directory,
                "run_directory": daemon.run_directory,
                "conditions": [_condition(one) for one in conditions],
                "realms": [
                    {"name": realm.name, "sockets": list(realm.sockets), **_counts(inventory, realm.name)}
                    for realm in daemon.realms
                ],
                "images": len(images),
                "pulls": [_pull(one) for one in pulls],
            }
        )
    else:
        rows = _rows(here, list(conditions), inventory, len(images))
        print(pairs([*rows, *(("pulling", _going(one)) for one in pulls)]), end="")
    well = all(one.status for one in conditions)
    raise typer.Exit(exits.OK if well else exits.FAILED)


def _pulls(here: Session) -> list[admin_pb2.RunningPull]:
    from api.proto import admin_pb2

    return list(here.admin.Pulls(admin_pb2.PullsRequest(), timeout=READ_TIMEOUT).pulls)


def _pull(one: admin_pb2.RunningPull) -> dict[str, Any]:
    return {
        "reference": one.reference,
        "started_at": rfc3339(one.started_at),
        "stage": one.progress.stage,
        "received": one.progress.received,
        "total": one.progress.total,
        "rate": one.progress.rate,
        "layers": [
            {"digest": layer.digest, "phase": layer.phase, "received": layer.received, "total": layer.total}
            for layer in one.progress.layers
        ],
    }


def _going(one: admin_pb2.RunningPull) -> str:
    """A pull in a line: how far, how fast, and what its layers are at."""
    progress = one.progress
    if not progress.total:
        return f"{one.reference}: {progress.stage}"
    phases = Counter(layer.phase for layer in progress.layers)
    layers = ", ".join(f"{count} {phase}" for phase, count in phases.items())
    far = f"{size(progress.received)} of {size(progress.total)}, {size(int(progress.rate))}/s"
    return f"{one.reference}: {far} ({layers})"


def _condition(one: cri_pb2.RuntimeCondition) -> dict[str, Any]:
    return {"type": one.type, "status": one.status, "reason": one.reason, "message": one.message}


def _counts(inventory: Inventory, realm: str) -> dict[str, int]:
    pods = [pod for pod in inventory.pods.values() if pod.realm == realm]
    containers = [one for one in inventory.containers.values() if one.realm == realm]
    return {
        "pods": len(pods),
        "pods_ready": sum(pod.state == "ready" for pod in pods),
        "containers": len(containers),
        "containers_running": sum(one.state == "running" for one in containers),
    }


def _rows(
    here: Session, conditions: list[cri_pb2.RuntimeCondition], inventory: Inventory, images: int
) -> list[tuple[str, str]]:
    daemon = here.daemon
    ready_after = (daemon.ready_at - daemon.started_at) / 1e6
    rows = [
        ("daemon", f"crispd {daemon.version}, process {daemon.pid}, {size(daemon.resident_bytes)}"),
        ("running for", f"{age(daemon.started_at, here.now())}, ready after {ready_after:.0f} ms"),
        ("state", daemon.state_directory),
    ]
    for one in conditions:
        why = f": {one.reason} {one.message}".rstrip() if not one.status else ""
        rows.append((one.type, f"{'yes' if one.status else 'NO'}{why}"))
    for realm in daemon.realms:
        counts = _counts(inventory, realm.name)
        rows.append(
            (
                f"realm {realm.name}",
                f"{counts['pods_ready']} of {counts['pods']} pods ready,"
                f" {counts['containers_running']} of {counts['containers']} containers running,"
                f" {', '.join(realm.sockets)}",
            )
        )
    rows.append(("images", str(images)))
    owed = [pod.path for pod in inventory.pods.values() if pod.fault]
    if owed:
        rows.append(("clean-ups owed", f"{', '.join(owed)}; `crisp inspect` says what"))
    return rows
