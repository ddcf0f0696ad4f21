"""`crisp doctor --handler NAME`: a real pod on one handler, verb by verb, and what was said where it failed.

The pod has no image: its only process is the first one that pods with a shared PID namespace have. It lives
in the realm of `crisp run`, so that one which cannot be removed is seen there. Another trial of the same
handler waits for its turn.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from oci.bundle.inputs import DEFAULT_PATH
from oci.errors import CrispError, Internal
from oci.workload import NamespaceMode, NamespaceOptions, PodMetadata, PodSecurity, PodSpec
from shim.doctor import Check, Verdict
from shim.node import Node
from shim.pods import init
from shim.pods.verbs import Pods
from shim.records import PodRecord
from shim.runtimes.driver import ExecRequest, Status

T = TypeVar("T")

_EXEC_LIMIT = 30.0  # seconds, of a command that prints one line


async def try_handler(node: Node, pods: Pods, name: str, *, realm: str) -> list[Check]:
    """The checks in order, up to the first that failed; whatever was made is removed again. Never raises."""
    checks: list[Check] = []
    area = f"handler {name}"

    async def step(verb: str, work: Callable[[], Awaitable[T]], told: Callable[[T], str]) -> T | None:
        began = time.monotonic()
        try:
            result = await work()
        except CrispError as error:
            checks.append(
                Check(
                    area=area,
                    name=verb,
                    verdict=Verdict.PROBLEM,
                    found=error.message,
                    advice="the daemon's log has the command; `crisp handlers` says how it is configured",
                )
            )
            return None
        took = f"{(time.monotonic() - began) * 1000:.0f} ms"
        checks.append(
            Check(area=area, name=verb, verdict=Verdict.OK, found=f"{told(result)}, {took}".lstrip(", "))
        )
        return result

    async def choose() -> str:
        handler = node.handlers.driver(name)
        return f"{handler.handler} {handler.version}"

    if await step("probe", choose, str) is None:
        return checks
    spec = _pod(node, name)
    pod = await step("run pod", lambda: pods.run(spec, realm=realm), _address)
    if pod is None:
        return checks
    if (
        await step("state", lambda: _state(node, pod), lambda status: status.value) is not None
        and await step("exec", lambda: _exec(node, pod), str) is not None
    ):
        await step("stop", lambda: pods.stop(realm, pod.id), lambda _: "")
    await step("remove", lambda: pods.remove(realm, pod.id), lambda _: "")
    return checks


def _pod(node: Node, name: str) -> PodSpec:
    ready, _, _ = node.network.condition()
    return PodSpec(
        metadata=PodMetadata(name=f"doctor-{name}", namespace="crisp-doctor", uid=node.new_id()[:16]),
        handler=name,
        hostname="doctor",
        security=PodSecurity(
            namespaces=NamespaceOptions(
                network=NamespaceMode.POD if ready else NamespaceMode.NODE, pid=NamespaceMode.POD
            )
        ),
    )


def _address(pod: PodRecord) -> str:
    if pod.network is None:
        return "without a network of its own" if not pod.namespaces.network else "without an address"
    return ", ".join(pod.network.addresses)


async def _state(node: Node, pod: PodRecord) -> Status:
    seen = await node.driver_of(pod).observe(init.target(node, pod))
    if seen.status is not Status.RUNNING:
        raise Internal(f"handler {pod.handler}: the first process was started and is {seen.status.value}")
    return seen.status


async def _exec(node: Node, pod: PodRecord) -> str:
    request = ExecRequest(
        process={
            "args": ["/catatonit", "--version"],
            "cwd": "/",
            "env": [f"PATH={DEFAULT_PATH}"],
            "user": {"uid": 0, "gid": 0},
            "terminal": False,
            "noNewPrivileges": True,
        },
        timeout=_EXEC_LIMIT,
    )
    done = await node.driver_of(pod).exec_sync(init.target(node, pod), request)
    said = (done.stdout or done.stderr).decode(errors="replace").strip()
    if done.exit_code != 0 or not said:
        raise Internal(
            f"handler {pod.handler}: exec of /catatonit --version ended with {done.exit_code}: {said!r}"
        )
    return said.splitlines()[0]
