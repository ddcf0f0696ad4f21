"""What the shell offers for a name that is being typed. Says nothing when the daemon does not answer."""

from __future__ import annotations

from collections.abc import Iterable

import typer

from cli.places import Options
from cli.session import Session


def objects(context: typer.Context, incomplete: str) -> list[str]:
    """Pods, and containers once the pod is typed."""
    return _levels(_names(context, with_empty_pods=True), incomplete)


def containers(context: typer.Context, incomplete: str) -> list[str]:
    """Containers, and the pods that stand for theirs."""
    return _levels(_names(context, with_empty_pods=False), incomplete)


def namespaces(context: typer.Context, incomplete: str) -> list[str]:
    return sorted(
        {name.partition("/")[0] for name in _names(context, with_empty_pods=True) if _fits(name, incomplete)}
    )


def images(context: typer.Context, incomplete: str) -> list[str]:
    from oci.errors import CrispError

    try:
        from api.proto import cri_pb2

        listed = _session(context).any_realm.image.ListImages(cri_pb2.ListImagesRequest(), timeout=2.0)
    except CrispError:
        return []
    return sorted(tag for image in listed.images for tag in image.repo_tags if _fits(tag, incomplete))


def handlers(context: typer.Context, incomplete: str) -> list[str]:
    from oci.errors import CrispError

    try:
        from api.proto import admin_pb2

        listed = _session(context).admin.Handlers(admin_pb2.HandlersRequest(), timeout=2.0)
    except CrispError:
        return []
    return sorted(one.name for one in listed.handlers if not one.problem and _fits(one.name, incomplete))


def _names(context: typer.Context, *, with_empty_pods: bool) -> list[str]:
    from oci.errors import CrispError

    try:
        inventory = _session(context).inventory()
    except CrispError:
        return []
    if with_empty_pods:
        return list(inventory.names())
    pods = {one.pod_id for one in inventory.containers.values()}
    named = [pod.path for pod in inventory.pods.values() if pod.id in pods]
    return named + [inventory.name_of(one) for one in inventory.containers.values()]


def _levels(names: Iterable[str], incomplete: str) -> list[str]:
    """Full names that begin like what is typed, or whose pod does: POD/CONTAINER is a name too."""
    fitting = {name for name in names if _fits(name, incomplete)}
    fitting |= {rest for name in names if (rest := name.partition("/")[2]) and _fits(rest, incomplete)}
    if incomplete:
        return sorted(fitting)
    return sorted(name for name in fitting if name.count("/") >= 1)


def _fits(name: str, incomplete: str) -> bool:
    return name.startswith(incomplete)


def _session(context: typer.Context) -> Session:
    """The application's own function has not run while the shell asks; its parameters are there."""
    given = context.find_root().params
    return Session(
        Options(
            config=given.get("config_file") or "",
            run_dir=given.get("run_dir") or "",
            socket=given.get("socket") or "",
        )
    )
