"""`crisp stop` and `crisp rm`: pods and containers end, and go away."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import typer

from cli import exits, names
from cli.arguments import Grace, Names, session
from cli.form import note
from cli.inventory import KUBELET, RUN, Inventory, Pod
from cli.names import Target
from cli.runlogs import remove_logs
from cli.session import Session
from oci.errors import CrispError, WrongState

_CALL = 120.0  # seconds beyond the grace that the daemon may take
_AT_ONCE = 8  # containers of a pod that are stopped at the same time


def register(app: typer.Typer) -> None:
    app.command()(stop)
    app.command()(rm)


def stop(context: typer.Context, names_: Names, timeout: Grace = 10) -> None:
    """Stop containers, or all of a pod and the pod itself."""
    _each(session(context), names_, lambda here, target, all_: _stop(here, target, all_, timeout))


def rm(
    context: typer.Context,
    names_: Names,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Also what runs, and what kubelet made and will make again.")
    ] = False,
) -> None:
    """Remove pods with their containers and logs, or single containers.

    Pods that kubelet made are kubelet's: they are removed only with --force, and their logs stay.
    """
    _each(session(context), names_, lambda here, target, all_: _remove(here, target, all_, force=force))


def _each(here: Session, texts: list[str], act: Callable[[Session, Target, Inventory], str]) -> None:
    """Every name, also after one that fails; the first failure decides the exit status."""
    worst = exits.OK
    inventory = here.inventory()
    for text in texts:
        try:
            print(act(here, names.find(text, inventory), inventory))
        except CrispError as error:
            note(str(error))
            worst = worst or exits.status_of(error)
    raise typer.Exit(worst)


def _stop(here: Session, target: Target, inventory: Inventory, grace: int) -> str:
    if target.realm == KUBELET:
        note(f"{target.name} is kubelet's: kubelet starts it again unless its pod is deleted")
    if target.container is not None:
        stop_container(here, target.realm, target.id, grace)
    elif target.pod is not None:
        stop_pod(here, target.pod, inventory, grace)
    return f"stopped {target.name}"


def stop_container(here: Session, realm: str, id_: str, grace: int) -> None:
    """SIGTERM (or the image's signal), SIGKILL after `grace` seconds; returns when it has ended."""
    from api.proto import cri_pb2

    request = cri_pb2.StopContainerRequest(container_id=id_, timeout=grace)
    here.realm(realm).runtime.StopContainer(request, timeout=grace + _CALL)


def stop_pod(here: Session, pod: Pod, inventory: Inventory, grace: int) -> None:
    """Its containers at the same time, with their grace; then the pod, which would kill them at once."""
    from api.proto import cri_pb2

    running = [one for one in inventory.containers_of(pod) if one.state in ("running", "starting", "unknown")]
    if running:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda one: stop_container(here, pod.realm, one.id, grace), running))
    here.realm(pod.realm).runtime.StopPodSandbox(cri_pb2.StopPodSandboxRequest(pod_sandbox_id=pod.id))


def remove_pod(here: Session, pod: Pod) -> None:
    """With its containers; and its logs if nobody else owns them."""
    from api.proto import cri_pb2

    runtime = here.realm(pod.realm).runtime
    runtime.StopPodSandbox(cri_pb2.StopPodSandboxRequest(pod_sandbox_id=pod.id))
    try:
        runtime.RemovePodSandbox(cri_pb2.RemovePodSandboxRequest(pod_sandbox_id=pod.id))
    finally:
        # Also when the daemon could not finish: it does so by itself later, and knows no logs.
        if pod.realm == RUN:
            remove_logs(here.logs_of_run, namespace=pod.namespace, name=pod.name, uid=pod.uid)


def _remove(here: Session, target: Target, inventory: Inventory, *, force: bool) -> str:
    from api.proto import cri_pb2

    if target.realm == KUBELET and not force:
        raise WrongState(
            f"{target.name} is kubelet's: delete the pod with kubectl, or use --force,"
            " after which kubelet makes it again"
        )
    if not force and (running := _running(target, inventory)):
        raise WrongState(f"{running}; `crisp stop {target.name}` first, or use --force")
    if target.container is not None:
        request = cri_pb2.RemoveContainerRequest(container_id=target.id)
        here.realm(target.realm).runtime.RemoveContainer(request)
    elif target.pod is not None:
        remove_pod(here, target.pod)
    return f"removed {target.name}"


def _running(target: Target, inventory: Inventory) -> str:
    """What of the target still runs, in words."""
    if target.container is not None:
        return f"container {target.name} runs" if target.container.state == "running" else ""
    assert target.pod is not None
    inside = [one.name for one in inventory.containers_of(target.pod) if one.state == "running"]
    return f"pod {target.name} has running containers ({', '.join(sorted(inside))})" if inside else ""
