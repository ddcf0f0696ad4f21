"""`crisp ps` and `crisp pods`: what is there, once or at every change."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from cli.arguments import Namespace, Output, Realm, Watch, session
from cli.form import Form, age, say_json, say_table, short
from cli.inventory import Container, Inventory, Pod
from cli.session import Session

_LIVE_PODS = ("creating", "ready", "stopping", "removing")
_LIVE_CONTAINERS = ("creating", "created", "starting", "running", "unknown", "removing")

All = Annotated[bool, typer.Option("--all", "-a", help="Those that have ended, too.")]


def register(app: typer.Typer) -> None:
    app.command()(ps)
    app.command()(pods)


def ps(
    context: typer.Context,
    everything: All = False,
    namespace: Namespace = "",
    realm: Realm = None,
    watch: Watch = False,
    output: Output = Form.TABLE,
) -> None:
    """List containers."""
    here = session(context)

    def show(inventory: Inventory) -> None:
        chosen = [
            one
            for one in _by_name(inventory)
            if (everything or one.state in _LIVE_CONTAINERS) and _in(inventory.pod_of(one), namespace)
        ]
        if output is Form.JSON:
            say_json([one.plain(inventory.pod_of(one)) for one in chosen])
        else:
            say_table(
                ("POD", "CONTAINER", "STATE", "RESTARTS", "AGE", "HANDLER", "IMAGE", "ID"),
                [_container_row(one, inventory, here.now()) for one in chosen],
            )

    _show(here, realm or "", show, watch=watch, output=output)


def pods(
    context: typer.Context,
    everything: All = False,
    namespace: Namespace = "",
    realm: Realm = None,
    watch: Watch = False,
    output: Output = Form.TABLE,
) -> None:
    """List pods."""
    here = session(context)

    def show(inventory: Inventory) -> None:
        chosen = [
            pod
            for pod in sorted(inventory.pods.values(), key=lambda pod: (pod.path, pod.created_at))
            if (everything or pod.state in _LIVE_PODS or pod.fault) and _in(pod, namespace)
        ]
        if output is Form.JSON:
            say_json([pod.plain() for pod in chosen])
        else:
            say_table(
                ("POD", "STATE", "CONTAINERS", "ADDRESS", "AGE", "HANDLER", "REALM", "ID"),
                [_pod_row(pod, inventory, here.now()) for pod in chosen],
            )

    _show(here, realm or "", show, watch=watch, output=output)


def _by_name(inventory: Inventory) -> list[Container]:
    return sorted(
        inventory.containers.values(), key=lambda one: (inventory.name_of(one), one.attempt, one.created_at)
    )


def _in(pod: Pod | None, namespace: str) -> bool:
    return not namespace or (pod is not None and pod.namespace == namespace)


def _container_row(one: Container, inventory: Inventory, now: int) -> list[str]:
    pod = inventory.pod_of(one)
    return [
        pod.path if pod else short(one.pod_id),
        one.name,
        _state(one, now),
        str(one.attempt),
        age(one.started_at or one.created_at, now),
        one.handler,
        one.image if not one.image.startswith("sha256:") else short(one.image),
        short(one.id),
    ]


def _state(one: Container, now: int) -> str:
    text = one.state
    if one.state == "exited":
        reason = f", {one.reason}" if one.reason and one.reason not in ("Completed", "Error") else ""
        text = f"exited ({one.exit_code}{reason}) {age(one.finished_at, now)} ago"
    return f"{text}, owes a clean-up" if one.fault else text


def _pod_row(pod: Pod, inventory: Inventory, now: int) -> list[str]:
    inside = inventory.containers_of(pod)
    running = sum(one.state == "running" for one in inside)
    return [
        pod.path,
        f"{pod.state}, owes a clean-up" if pod.fault else pod.state,
        f"{running}/{len({one.name for one in inside})}",
        ",".join(pod.addresses) or "-",
        age(pod.created_at, now),
        pod.handler,
        pod.realm,
        short(pod.id),
    ]


def _show(here: Session, realm: str, show: Callable[[Inventory], None], *, watch: bool, output: Form) -> None:
    if not watch:
        show(here.inventory(realm))
        return
    from cli.watching import changes

    clear = output is Form.TABLE and sys.stdout.isatty()
    for _ in changes(here, realm):
        inventory = here.inventory(realm)
        if clear:
            sys.stdout.write("\033[H\033[2J\033[3J")
        elif output is Form.TABLE:
            sys.stdout.write("\n")
        show(inventory)
        sys.stdout.flush()
