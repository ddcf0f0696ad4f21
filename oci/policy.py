"""Which handler a pod gets, and why: its RuntimeClass first, then the node's rules; pure.

The rules are those that frakti had (a virtual machine unless the pod needs the host) and containerd's
annotation for workloads that are not trusted, as settings.
"""

from __future__ import annotations

from dataclasses import dataclass

from oci.errors import BadInput
from oci.workload import NamespaceMode, PodSpec

UNTRUSTED = "io.kubernetes.cri.untrusted-workload"
OS_CONTAINER = "runtime.frakti.alpha.kubernetes.io/OSContainer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The node's rules, as handler names; "" is no such rule."""

    host: str = ""  # of pods that need the host: privileged, or with one of its namespaces
    untrusted: str = ""  # of pods whose annotation says that they are not trusted


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The handler's name, "" for the default one, and in words why."""

    handler: str
    reason: str


def choose(pod: PodSpec, policy: Policy) -> Choice:
    """The handler of a new pod. Raises BadInput for one that is not trusted and wants the host."""
    if pod.handler:
        return Choice(handler=pod.handler, reason="the request names it")
    host = _needs_host(pod)
    if policy.untrusted and pod.annotations.get(UNTRUSTED) == "true":
        if host:
            raise BadInput(
                f"config.annotations[{UNTRUSTED}]: a pod that is not trusted cannot have the host: {host}"
            )
        return Choice(handler=policy.untrusted, reason=f"annotation {UNTRUSTED} is true")
    if policy.host and host:
        return Choice(handler=policy.host, reason=f"handler_policy.host: {host}")
    if policy.host and pod.annotations.get(OS_CONTAINER) == "true":
        return Choice(handler=policy.host, reason=f"annotation {OS_CONTAINER} is true")
    return Choice(handler="", reason="the default handler")


def _needs_host(pod: PodSpec) -> str:
    """Why a sandbox of its own would not do for this pod, "" if it would."""
    if pod.security.privileged:
        return "the pod is privileged"
    options = pod.security.namespaces
    shared = [
        name
        for name, mode in (("network", options.network), ("pid", options.pid), ("ipc", options.ipc))
        if mode is NamespaceMode.NODE
    ]
    return f"the pod uses the host's {', '.join(shared)} namespace" if shared else ""
