"""Which handler a pod gets, by what it asks for and what the node says."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from oci.errors import BadInput
from oci.policy import OS_CONTAINER, UNTRUSTED, Choice, Policy, choose
from oci.workload import NamespaceMode, NamespaceOptions, PodMetadata, PodSecurity, PodSpec

RULES = Policy(host="runc", untrusted="kata")
HOST_NETWORK = NamespaceOptions(network=NamespaceMode.NODE)
HOST_PID_AND_IPC = NamespaceOptions(pid=NamespaceMode.NODE, ipc=NamespaceMode.NODE)


def pod(
    *,
    handler: str = "",
    privileged: bool = False,
    namespaces: NamespaceOptions | None = None,
    annotations: Mapping[str, str] | None = None,
) -> PodSpec:
    return PodSpec(
        metadata=PodMetadata(name="p", namespace="n", uid="u"),
        handler=handler,
        annotations=annotations or {},
        security=PodSecurity(privileged=privileged, namespaces=namespaces or NamespaceOptions()),
    )


@pytest.mark.parametrize(
    ("asked", "choice"),
    [
        (pod(), ("", "the default handler")),
        (pod(handler="x", privileged=True), ("x", "the request names it")),
        (pod(handler="x", annotations={UNTRUSTED: "true"}), ("x", "the request names it")),
        (pod(privileged=True), ("runc", "handler_policy.host: the pod is privileged")),
        (
            pod(namespaces=HOST_NETWORK),
            ("runc", "handler_policy.host: the pod uses the host's network namespace"),
        ),
        (
            pod(namespaces=HOST_PID_AND_IPC),
            ("runc", "handler_policy.host: the pod uses the host's pid, ipc namespace"),
        ),
        (pod(annotations={OS_CONTAINER: "true"}), ("runc", f"annotation {OS_CONTAINER} is true")),
        (pod(annotations={OS_CONTAINER: "false"}), ("", "the default handler")),
        (pod(annotations={UNTRUSTED: "true"}), ("kata", f"annotation {UNTRUSTED} is true")),
        (pod(annotations={UNTRUSTED: "yes"}), ("", "the default handler")),
    ],
)
def test_the_request_goes_first_then_the_rules(asked: PodSpec, choice: tuple[str, str]) -> None:
    assert choose(asked, RULES) == Choice(handler=choice[0], reason=choice[1])


def test_without_rules_everything_gets_the_default() -> None:
    for asked in (
        pod(privileged=True),
        pod(annotations={UNTRUSTED: "true", OS_CONTAINER: "true"}, namespaces=HOST_NETWORK),
    ):
        assert choose(asked, Policy()) == Choice(handler="", reason="the default handler")


def test_what_is_not_trusted_does_not_get_the_host() -> None:
    with pytest.raises(BadInput, match="cannot have the host: the pod is privileged"):
        choose(pod(privileged=True, annotations={UNTRUSTED: "true"}), RULES)
