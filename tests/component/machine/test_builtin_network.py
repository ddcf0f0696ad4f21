"""The network of our own with the distribution's plugins: addresses, ways in, leases, and nothing left."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import subprocess
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from oci.cni import NetworkRequest, NetworkResult
from oci.workload import IdMapping, NamespaceOptions, PodId, PodMetadata, PortMapping, UserNamespace
from shim.kernel import namespace
from shim.namespaces.pin import Namespaces
from shim.network.network import Builtin, Network
from shim.records import PinnedNamespaces

T = TypeVar("T")
BRIDGE = "crisptest1"
BIN_DIRS = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))
PLAIN = NamespaceOptions()
MAPS = (IdMapping(host_id=400_000, container_id=0, length=65536),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Namespaces and networks of one daemon whose `conf_dir` holds nothing."""

    directory: Path
    namespaces: Namespaces
    network: Network

    @property
    def leases(self) -> list[str]:
        place = self.directory / "run" / "cni" / BRIDGE
        return sorted(entry.name for entry in place.iterdir() if entry.name[0] in "1f")

    @contextlib.asynccontextmanager
    async def pod(
        self, *ports: PortMapping, options: NamespaceOptions = PLAIN
    ) -> AsyncIterator[tuple[NetworkRequest, PinnedNamespaces, NetworkResult]]:
        pod = PodId(secrets.token_hex(32))
        pinned = self.namespaces.plan(pod, options)
        request = NetworkRequest(
            pod_id=pod,
            metadata=PodMetadata(name="web", namespace="shop", uid="u"),
            netns=pinned.network,
            port_mappings=ports,
        )
        try:
            await self.namespaces.pin(pinned, options, hostname="web", sysctls={})
            yield request, pinned, await self.network.attach(request)
        finally:
            await self.network.detach(request)
            await self.namespaces.unpin(pinned)


@contextlib.asynccontextmanager
async def node(directory: Path, *subnets: str) -> AsyncIterator[Node]:
    namespaces = Namespaces(directory / "run")
    await asyncio.to_thread(namespaces.prepare)
    builtin = Builtin(
        bridge=BRIDGE, subnets=subnets or ("10.231.0.0/24",), data_dir=directory / "run" / "cni"
    )
    network = Network(
        conf_dir=directory / "net.d",
        bin_dirs=BIN_DIRS,
        cache_dir=directory / "state" / "cni",
        builtin=builtin,
    )
    await network.start()
    try:
        yield Node(directory=directory, namespaces=namespaces, network=network)
    finally:
        await network.retire()
        await network.close()
        namespaces.retire()


def go(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work, debug=True)


def listener(address: str) -> socket.socket:
    """A socket that listens in the calling thread's network namespace, where it then stays."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.bind((address, 8000))
    made.listen()
    made.settimeout(20)
    return made


def talk(serving: socket.socket, address: str, port: int) -> tuple[bytes, str]:
    """What a client gets from `serving` at that address, and the client's address as the server sees it."""
    with socket.create_connection((address, port), timeout=20) as client:
        accepted, peer = serving.accept()
        with accepted:
            accepted.sendall(b"hello")
        return client.recv(10), peer[0]


def nat_rules() -> list[str]:
    """The rules of iptables' nat tables that name the test's bridge or subnets."""
    shown = [
        subprocess.run([tool, "-t", "nat"], capture_output=True, text=True, check=True).stdout
        for tool in ("iptables-save", "ip6tables-save")
    ]
    return [line for line in "".join(shown).splitlines() if BRIDGE in line or "10.231.0." in line]


def links() -> list[str]:
    return [name for _, name in socket.if_nameindex() if name == BRIDGE or name.startswith("veth")]


@pytest.mark.parametrize("options", [PLAIN, NamespaceOptions(user=UserNamespace(uids=MAPS, gids=MAPS))])
def test_a_pod_gets_an_address_at_which_the_node_reaches_it(
    tmp_path: Path, options: NamespaceOptions
) -> None:
    async def main() -> None:
        async with node(tmp_path) as here:
            assert here.network.condition() == (True, "", "")
            async with here.pod(options=options) as (request, pinned, result):
                (address,) = result.addresses
                assert result == NetworkResult(interface="eth0", addresses=(address,), networks=(BRIDGE,))
                assert here.leases == [address]
                await here.network.check(request)
                serving = await namespace.within_network(pinned.network, lambda: listener(address))
                with serving:
                    assert await asyncio.to_thread(talk, serving, address, 8000) == (b"hello", "10.231.0.1")
            assert here.leases == []
            assert list((here.directory / "state" / "cni").iterdir()) == []

    before = links()
    go(main())
    assert (links(), nat_rules(), (tmp_path / "net.d").exists()) == (before, [], False)


def test_a_mapped_port_leads_to_the_pod_from_the_nodes_own_addresses(tmp_path: Path) -> None:
    mapped = PortMapping(protocol="TCP", container_port=8000, host_port=18097)

    async def main() -> None:
        async with node(tmp_path) as here, here.pod(mapped) as (_, pinned, result):
            (address,) = result.addresses
            serving = await namespace.within_network(pinned.network, lambda: listener(address))
            with serving:
                for target in ("127.0.0.1", "10.231.0.1"):
                    answer, _ = await asyncio.to_thread(talk, serving, target, 18097)
                    assert answer == b"hello"

    go(main())
    assert nat_rules() == []


def test_two_families_give_two_addresses_with_ipv4_first(tmp_path: Path) -> None:
    async def main() -> tuple[str, ...]:
        async with node(tmp_path, "fd00:231::/64", "10.231.0.0/24") as here, here.pod() as (_, _, result):
            return result.addresses

    first, second = go(main())
    assert (first.startswith("10.231.0."), second.startswith("fd00:231::")) == (True, True)
    assert nat_rules() == []


def test_pods_attached_at_once_get_addresses_of_their_own_and_one_masquerade_rule(tmp_path: Path) -> None:
    async def main() -> None:
        async with node(tmp_path) as here:
            async with contextlib.AsyncExitStack() as pods:
                entered = await asyncio.gather(*(pods.enter_async_context(here.pod()) for _ in range(6)))
                addresses = [result.addresses[0] for _, _, result in entered]
                assert len(set(addresses)) == 6
                assert here.leases == sorted(addresses)
                assert len([rule for rule in nat_rules() if "MASQUERADE" in rule]) == 1
                await here.network.retire()  # pods are attached: nothing happens
                assert BRIDGE in links()
            assert here.leases == []

    go(main())
    assert nat_rules() == []


def test_a_flushed_firewall_is_mended_with_the_next_pod(tmp_path: Path) -> None:
    async def main() -> None:
        async with node(tmp_path) as here, here.pod():
            (rule,) = [rule for rule in nat_rules() if "MASQUERADE" in rule]
            await here.network._masquerade.remove()  # type: ignore[union-attr] # as a firewall reload does
            assert nat_rules() == []
            async with here.pod():
                assert nat_rules() == [rule]

    go(main())


def test_a_namespace_that_was_lost_leaves_no_lease_no_link_and_no_rule(tmp_path: Path) -> None:
    mapped = PortMapping(protocol="udp", container_port=53, host_port=18053)

    async def main() -> None:
        async with node(tmp_path) as here, here.pod(mapped) as (request, pinned, _):
            namespace.release(pinned.network)
            await here.network.detach(request)
            assert here.leases == []
            assert [rule for rule in nat_rules() if "MASQUERADE" not in rule] == []

    go(main())
    assert nat_rules() == []


def test_a_pod_is_detached_by_the_daemon_that_comes_after(tmp_path: Path) -> None:
    async def main() -> None:
        async with node(tmp_path) as here, here.pod() as (request, _, _):
            after = Network(
                conf_dir=tmp_path / "net.d", bin_dirs=BIN_DIRS, cache_dir=tmp_path / "state" / "cni"
            )
            await after.start()  # and the setting was switched off meanwhile
            await after.detach(request)
            await after.close()
            assert here.leases == []

    go(main())


def test_a_path_that_is_no_namespace_is_refused_by_the_plugin_and_undone(tmp_path: Path) -> None:
    async def main() -> None:
        async with node(tmp_path) as here:
            request = NetworkRequest(
                pod_id=PodId("ab" * 32),
                metadata=PodMetadata(name="web", namespace="shop", uid="u"),
                netns=str(tmp_path / "no-namespace"),
            )
            (tmp_path / "no-namespace").touch()
            with pytest.raises(Exception, match=rf"CNI ADD, network {BRIDGE}, plugin bridge: .*namespace"):
                await here.network.attach(request)
            await here.network.detach(request)
            assert here.leases == []

    go(main())
