"""Connections into a pod, for port forwarding: which pods take them, and the driver's verb."""

from __future__ import annotations

import socket

from oci.errors import WrongState
from shim.node import Node
from shim.records import PodRecord, PodState


def ready(pod: PodRecord) -> PodRecord:
    """The pod itself. Raises WrongState unless it is READY."""
    if pod.state is not PodState.READY:
        raise WrongState(f"pod sandbox {pod.id} is {pod.state.value}, no port of it can be forwarded")
    return pod


async def dial(node: Node, pod: PodRecord, port: int) -> socket.socket:
    """A connection to `localhost:port` as the pod's containers see it, on the host's network too."""
    driver = node.driver_of(ready(pod))
    return await driver.dial(pod.id, pod.namespaces.network, port)
