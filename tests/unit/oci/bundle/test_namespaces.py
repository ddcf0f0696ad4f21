"""Namespaces: what is joined, what is new, and never the host's by accident."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from oci.bundle import NamespacePaths
from oci.bundle.namespaces import id_mappings, namespaces
from oci.errors import BadInput, WrongState
from oci.workload import (
    ContainerSecurity,
    IdMapping,
    NamespaceMode,
    NamespaceOptions,
    PodSecurity,
    UserNamespace,
)
from tests import bundles

POD, CONTAINER, NODE, TARGET = (
    NamespaceMode.POD,
    NamespaceMode.CONTAINER,
    NamespaceMode.NODE,
    NamespaceMode.TARGET,
)
PATHS = NamespacePaths(network="/n", ipc="/i", uts="/u", user="/user", pid="/p")
LINE = IdMapping(host_id=100000, container_id=0, length=65536)
USERS = UserNamespace(uids=(LINE,), gids=(LINE,))


def made(
    options: NamespaceOptions,
    *,
    paths: NamespacePaths = PATHS,
    pod: NamespaceOptions | None = None,
    **changed: Any,
) -> list[dict[str, str]]:
    privileged = changed.pop("privileged", False)
    return namespaces(
        bundles.inputs(
            container=bundles.container(
                security=ContainerSecurity(namespaces=options, privileged=privileged)
            ),
            pod=bundles.pod(security=PodSecurity(namespaces=pod or replace(options, pid=POD, target_id=""))),
            namespaces=paths,
            **changed,
        )
    )


def test_a_container_joins_the_pods_namespaces_and_has_its_own_processes() -> None:
    assert made(NamespaceOptions(pid=CONTAINER)) == [
        {"type": "mount"},
        {"type": "network", "path": "/n"},
        {"type": "ipc", "path": "/i"},
        {"type": "uts", "path": "/u"},
        {"type": "pid"},
    ]


@pytest.mark.parametrize("options", [NamespaceOptions(), NamespaceOptions(pid=TARGET, target_id="c" * 64)])
def test_shared_processes_are_joined_by_path(options: NamespaceOptions) -> None:
    assert made(options)[-1] == {"type": "pid", "path": "/p"}


def test_the_nodes_namespaces_are_those_left_out_and_the_host_name_follows_the_network() -> None:
    assert made(NamespaceOptions(pid=NODE, network=NODE, ipc=NODE)) == [{"type": "mount"}]


def test_a_pod_in_its_own_user_namespace_joins_it_first() -> None:
    options = NamespaceOptions(pid=CONTAINER, user=USERS, user_requested=True)
    assert made(options)[1] == {"type": "user", "path": "/user"}
    line = {"containerID": 0, "hostID": 100000, "size": 65536}
    assert id_mappings(USERS) == {"uidMappings": [line], "gidMappings": [line]}
    assert id_mappings(None) == {}


@pytest.mark.parametrize(
    ("version", "privileged", "own"), [(2, False, True), (2, True, False), (1, False, False)]
)
def test_the_cgroup_namespace_is_private_on_version_2_unless_privileged(
    version: int, privileged: bool, own: bool
) -> None:
    host = bundles.host(cgroup=bundles.V2 if version == 2 else bundles.V1)
    found = made(NamespaceOptions(pid=CONTAINER), host=host, privileged=privileged)
    assert ({"type": "cgroup"} in found) is own


@pytest.mark.parametrize(
    ("missing", "options"),
    [
        ("network", NamespaceOptions(pid=CONTAINER)),
        ("ipc", NamespaceOptions(pid=CONTAINER)),
        ("uts", NamespaceOptions(pid=CONTAINER)),
        ("user", NamespaceOptions(pid=CONTAINER, user=USERS)),
        ("pid", NamespaceOptions()),
        ("pid", NamespaceOptions(pid=TARGET, target_id="c" * 64)),
    ],
)
def test_a_namespace_that_is_not_pinned_is_never_the_hosts(missing: str, options: NamespaceOptions) -> None:
    with pytest.raises(WrongState, match=missing if missing != "pid" else "no PID namespace to join"):
        made(options, paths=replace(PATHS, **{missing: ""}))


@pytest.mark.parametrize(
    ("options", "pod", "message"),
    [
        (NamespaceOptions(network=CONTAINER), None, "network: CONTAINER is not possible"),
        (NamespaceOptions(ipc=TARGET), None, "ipc: TARGET is not possible"),
        (NamespaceOptions(pid=TARGET), None, "target_id: empty, with pid mode TARGET"),
        (
            NamespaceOptions(pid=CONTAINER, user=USERS, user_requested=True),
            NamespaceOptions(),
            "userns_options: differ from those of the pod",
        ),
    ],
)
def test_modes_that_cannot_be_are_refused(
    options: NamespaceOptions, pod: NamespaceOptions | None, message: str
) -> None:
    with pytest.raises(BadInput, match=f"config.linux.security_context.namespace_options.{message}"):
        made(options, pod=pod)
