"""Where a pod's namespaces are kept, and the text of its id maps."""

from __future__ import annotations

from pathlib import Path

from oci.workload import IdMapping, NamespaceMode, NamespaceOptions, PodId, UserNamespace
from shim.namespaces.pin import Namespaces
from shim.namespaces.userns import map_lines
from shim.records import PinnedNamespaces

POD = PodId("ab" * 32)
MAPS = (
    IdMapping(host_id=65536, container_id=0, length=65536),
    IdMapping(host_id=7, container_id=70000, length=1),
)


def planned(options: NamespaceOptions) -> PinnedNamespaces:
    return Namespaces(Path("/run/crisp")).plan(POD, options)


def test_a_pod_of_its_own_has_network_host_name_and_ipc() -> None:
    assert planned(NamespaceOptions()) == PinnedNamespaces(
        network=f"/run/netns/crisp-{POD}", uts=f"/run/crisp/ns/{POD}/uts", ipc=f"/run/crisp/ns/{POD}/ipc"
    )


def test_the_host_name_follows_the_network_and_ipc_does_not() -> None:
    assert planned(NamespaceOptions(network=NamespaceMode.NODE)) == PinnedNamespaces(
        ipc=f"/run/crisp/ns/{POD}/ipc"
    )
    assert planned(NamespaceOptions(ipc=NamespaceMode.NODE)) == PinnedNamespaces(
        network=f"/run/netns/crisp-{POD}", uts=f"/run/crisp/ns/{POD}/uts"
    )


def test_a_user_namespace_is_kept_beside_the_others() -> None:
    options = NamespaceOptions(
        network=NamespaceMode.NODE, ipc=NamespaceMode.NODE, user=UserNamespace(uids=MAPS, gids=MAPS)
    )
    assert planned(options) == PinnedNamespaces(user=f"/run/crisp/ns/{POD}/user")


def test_a_map_is_written_with_the_id_inside_first() -> None:
    assert map_lines(MAPS) == b"0 65536 65536\n70000 7 1\n"
