"""A pod's namespaces: made, set up, kept without a process, found again, released."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import pytest

from oci.errors import BadInput
from oci.workload import IdMapping, NamespaceMode, NamespaceOptions, PodId, UserNamespace
from shim.kernel import mount
from shim.kernel.mountinfo import mounts, mounts_below
from shim.namespaces.pin import Namespaces
from shim.records import PinnedNamespaces

T = TypeVar("T")
MAPS = (IdMapping(host_id=200_000, container_id=0, length=65536),)
USER = UserNamespace(uids=MAPS, gids=MAPS)
SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net/ipv4/ip_local_port_range": "1024 65535",
    "kernel.shm_rmid_forced": "1",
    "kernel.sem": "250 32000 32 99",
    "fs.mqueue.msg_max": "77",
    "kernel.domainname": "example.com",
}


@pytest.fixture
def namespaces(tmp_path: Path) -> Iterator[Namespaces]:
    made = Namespaces(tmp_path / "run")
    made.prepare()
    yield made
    for pinned in made.sweep().values():
        asyncio.run(made.unpin(pinned))
    made.retire()
    assert mounts_below(tmp_path) == ()


def go(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work, debug=True)


def new_plan(namespaces: Namespaces, options: NamespaceOptions) -> tuple[PodId, PinnedNamespaces]:
    pod = PodId(secrets.token_hex(32))
    return pod, namespaces.plan(pod, options)


def inside(pinned: PinnedNamespaces, *argv: str) -> str:
    """The output of a command that joins the pinned namespaces."""
    names = {"network": "net", "ipc": "ipc", "uts": "uts", "user": "user"}
    joins = [f"--{option}={getattr(pinned, name)}" for name, option in names.items() if getattr(pinned, name)]
    return subprocess.run(["nsenter", *joins, *argv], check=True, capture_output=True, text=True).stdout


def identities(pinned: PinnedNamespaces) -> dict[str, int]:
    return {
        field.name: Path(path).stat().st_ino
        for field in fields(pinned)
        if (path := getattr(pinned, field.name))
    }


@pytest.mark.parametrize("user", [None, USER], ids=["the node's users", "users of its own"])
def test_a_pods_namespaces_are_its_own_and_set_up_before_any_process(
    namespaces: Namespaces, user: UserNamespace | None
) -> None:
    options = NamespaceOptions(user=user)
    pod, plan = new_plan(namespaces, options)
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children")  # among them daemons of the run
    before = threading.active_count(), children.read_text()
    go(namespaces.pin(plan, options, hostname="web-0", sysctls=SYSCTLS))
    assert (threading.active_count(), children.read_text()) == before
    assert namespaces.intact(plan)
    assert namespaces.sweep() == {pod: plan}
    assert inside(plan, "hostname") == "web-0\n"
    assert inside(plan, "ip", "-brief", "address").split()[:4] == ["lo", "UNKNOWN", "127.0.0.1/8", "::1/128"]
    shown = {
        name: " ".join(inside(plan, "cat", f"/proc/sys/{name.replace('.', '/')}").split()) for name in SYSCTLS
    }
    assert shown == SYSCTLS
    if user is not None:
        assert (
            inside(plan, "cat", "/proc/self/uid_map", "/proc/self/gid_map").split()
            == ["0", "200000", "65536"] * 2
        )
    own = {name: Path(f"/proc/self/ns/{name}").stat().st_ino for name in ("net", "ipc", "uts", "user")}
    assert not set(own.values()) & set(identities(plan).values())
    go(namespaces.unpin(plan))
    go(namespaces.unpin(plan))
    assert (namespaces.intact(plan), namespaces.sweep()) == (False, {})
    assert not Path(plan.network).exists()


def test_a_pod_on_the_nodes_network_keeps_only_what_it_does_not_share(namespaces: Namespaces) -> None:
    options = NamespaceOptions(network=NamespaceMode.NODE)
    pod, plan = new_plan(namespaces, options)
    go(namespaces.pin(plan, options, hostname="ignored", sysctls={"kernel.shmmax": "65536"}))
    assert list(identities(plan)) == ["ipc"]
    assert inside(plan, "cat", "/proc/sys/kernel/shmmax") == "65536\n"
    assert inside(plan, "hostname") == subprocess.run(["hostname"], capture_output=True, text=True).stdout
    nothing = NamespaceOptions(network=NamespaceMode.NODE, ipc=NamespaceMode.NODE)
    _, empty = new_plan(namespaces, nothing)
    go(namespaces.pin(empty, nothing, hostname="", sysctls={}))
    assert (empty, namespaces.intact(empty)) == (PinnedNamespaces(), True)
    assert namespaces.sweep() == {pod: plan}


@pytest.mark.parametrize("user", [None, USER], ids=["the node's users", "users of its own"])
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("net.ipv4.ip_forward", "many", r"config\.linux\.sysctls\[net\.ipv4\.ip_forward\]"),
        ("net.ipv4.no_such_thing", "1", "does not exist in the pod's namespace"),
        ("kernel.shm_rmid_forced", "many", r"config\.linux\.sysctls\[kernel\.shm_rmid_forced\]"),
        ("vm.swappiness", "1", "belongs to the whole node"),
    ],
)
def test_a_refused_sysctl_is_named_and_what_was_made_is_released(
    namespaces: Namespaces, user: UserNamespace | None, name: str, value: str, words: str
) -> None:
    options = NamespaceOptions(user=user)
    _, plan = new_plan(namespaces, options)
    with pytest.raises(BadInput, match=words):
        go(namespaces.pin(plan, options, hostname="x", sysctls={name: value}))
    go(namespaces.unpin(plan))
    assert namespaces.sweep() == {}


def test_sysctls_of_an_interface_are_written_once_it_is_there(namespaces: Namespaces) -> None:
    options = NamespaceOptions()
    _, plan = new_plan(namespaces, options)
    sysctls = {"net.ipv4.conf.br9.proxy_arp": "1", "net.ipv4.ip_forward": "1"}
    go(namespaces.pin(plan, options, hostname="x", sysctls=sysctls))
    with pytest.raises(BadInput, match="br9"):
        go(namespaces.configure_interfaces(plan, sysctls))
    inside(plan, "ip", "link", "add", "br9", "type", "bridge")
    go(namespaces.configure_interfaces(plan, sysctls))
    assert inside(plan, "cat", "/proc/sys/net/ipv4/conf/br9/proxy_arp") == "1\n"


def test_a_map_that_the_kernel_refuses_is_bad_input(namespaces: Namespaces) -> None:
    twice = (*MAPS, IdMapping(host_id=5, container_id=0, length=1))
    options = NamespaceOptions(user=UserNamespace(uids=twice, gids=MAPS))
    _, plan = new_plan(namespaces, options)
    with pytest.raises(BadInput, match="userns_options: the kernel refuses the uid_map"):
        go(namespaces.pin(plan, options, hostname="x", sysctls={}))
    go(namespaces.unpin(plan))


@pytest.mark.parametrize("user", [None, USER], ids=["the node's users", "users of its own"])
def test_a_cancel_at_any_moment_leaves_only_what_unpin_releases(
    namespaces: Namespaces, user: UserNamespace | None
) -> None:
    options = NamespaceOptions(user=user)

    async def cancelled_at(turns: int) -> bool:
        _, plan = new_plan(namespaces, options)
        task = asyncio.ensure_future(namespaces.pin(plan, options, hostname="x", sysctls=SYSCTLS))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait((task,), timeout=30)
        assert done
        ended = not task.cancelled()
        await namespaces.unpin(plan)
        assert await asyncio.to_thread(namespaces.sweep) == {}
        return ended

    for turns in range(40):
        go(cancelled_at(turns))


def test_pins_do_not_spread_into_other_mount_namespaces(namespaces: Namespaces, tmp_path: Path) -> None:
    propagation = {entry.target: entry.propagation for entry in mounts()}
    assert propagation[str(tmp_path / "run" / "ns")] == ()
    assert [field.partition(":")[0] for field in propagation["/run/netns"]] == ["shared"]


def test_ip_netns_sees_a_pods_network_and_does_not_hide_it(namespaces: Namespaces) -> None:
    options = NamespaceOptions()
    pod, plan = new_plan(namespaces, options)
    go(namespaces.pin(plan, options, hostname="x", sysctls={}))
    subprocess.run(["ip", "netns", "add", "crisp-test-other"], check=True)
    try:
        listed = subprocess.run(["ip", "netns"], check=True, capture_output=True, text=True).stdout
        assert f"crisp-{pod}" in listed
    finally:
        subprocess.run(["ip", "netns", "delete", "crisp-test-other"], check=True)
    go(namespaces.unpin(plan))
    assert [entry.target for entry in mounts() if pod in entry.target] == []


def test_a_pin_that_lost_its_mount_is_not_intact_and_can_still_be_released(namespaces: Namespaces) -> None:
    options = NamespaceOptions()
    _, plan = new_plan(namespaces, options)
    go(namespaces.pin(plan, options, hostname="x", sysctls={}))
    mount.unmount(plan.network)
    assert (Path(plan.network).exists(), namespaces.intact(plan)) == (True, False)
    go(namespaces.unpin(plan))
    assert (Path(plan.network).exists(), namespaces.sweep()) == (False, {})


def test_a_restarted_daemon_finds_the_pins_of_the_one_before(namespaces: Namespaces, tmp_path: Path) -> None:
    options = NamespaceOptions(user=USER)
    pod, plan = new_plan(namespaces, options)
    go(namespaces.pin(plan, options, hostname="x", sysctls={}))
    later = Namespaces(tmp_path / "run")
    later.prepare()
    assert later.sweep() == {pod: plan}
    later.retire()  # holds a pod: nothing happens
    assert later.intact(plan)
