"""Which call, pod and container the current task works for, so that every log record can say so.

Owns three context variables. Tasks inherit them from whoever made the task (PEP 567). Knows nothing of gRPC
and sets up no handlers: a log filter or formatter reads `fields()`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

rpc: ContextVar[str] = ContextVar("crisp_rpc", default="")
"""The method and a short random id of this call: "RunPodSandbox/7f3a09c1"."""

pod: ContextVar[str] = ContextVar("crisp_pod", default="")
container: ContextVar[str] = ContextVar("crisp_container", default="")


@contextmanager
def about(*, pod_id: str = "", container_id: str = "") -> Iterator[None]:
    """Within the block, records belong to these objects; an empty id leaves what was set before."""
    tokens = [
        (variable, variable.set(value))
        for variable, value in ((pod, pod_id), (container, container_id))
        if value
    ]
    try:
        yield
    finally:
        for variable, token in tokens:
            variable.reset(token)


def fields() -> dict[str, str]:
    """The variables that are set, by the names that log records use: rpc, pod, container."""
    return {
        name: value
        for name, value in (("rpc", rpc.get()), ("pod", pod.get()), ("container", container.get()))
        if value
    }
