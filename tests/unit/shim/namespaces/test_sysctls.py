"""Which sysctls a pod may set, and what becomes of their names."""

from __future__ import annotations

import pytest

from oci.errors import BadInput
from oci.workload import IdMapping, NamespaceMode, NamespaceOptions, UserNamespace
from shim.kernel.namespace import Kind
from shim.namespaces.sysctls import Sysctl, default_sysctls, path_of, plan, with_defaults

ALL = frozenset({Kind.NETWORK, Kind.IPC, Kind.UTS})


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net.ipv4.conf.eth0/100.rp_filter", "net/ipv4/conf/eth0.100/rp_filter"),
        ("net/ipv4/conf/eth0.100/rp_filter", "net/ipv4/conf/eth0.100/rp_filter"),
        ("kernel.sem", "kernel/sem"),
    ],
)
def test_both_spellings_of_a_name_give_one_path(name: str, path: str) -> None:
    assert path_of(name) == path


@pytest.mark.parametrize(
    "name",
    [
        "", "net", "net..ipv4", ".net.ipv4", "/net/ipv4", "net/../kernel/panic", "net.ipv4.", "net/./ipv4",
        "net.ipv4=1", "net.ipv4+x", "net.ipv4\nkernel.panic", "net.ipv4 ", "net.\x00", "../net", "net./.ipv4",
    ],
)  # fmt: skip
def test_a_name_that_could_lead_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="is no name of a sysctl"):
        path_of(name)


def test_each_setting_is_planned_for_the_namespace_that_owns_it() -> None:
    asked = {
        "net.core.somaxconn": "1024",
        "kernel.shm_rmid_forced": "1",
        "kernel.msgmax": "65536",
        "kernel.sem": "250 32000 100 128",
        "fs.mqueue.msg_max": "100",
        "kernel.domainname": "example.com",
        "net.ipv4.conf.eth0.rp_filter": "1",
        "net.ipv4.conf.all.rp_filter": "1",
        "net.ipv6.neigh.eth1.gc_stale_time": "60",
    }
    assert plan(asked, ALL) == (
        Sysctl(path="net/core/somaxconn", value="1024", kind=Kind.NETWORK),
        Sysctl(path="kernel/shm_rmid_forced", value="1", kind=Kind.IPC),
        Sysctl(path="kernel/msgmax", value="65536", kind=Kind.IPC),
        Sysctl(path="kernel/sem", value="250 32000 100 128", kind=Kind.IPC),
        Sysctl(path="fs/mqueue/msg_max", value="100", kind=Kind.IPC),
        Sysctl(path="kernel/domainname", value="example.com", kind=Kind.UTS),
        Sysctl(path="net/ipv4/conf/eth0/rp_filter", value="1", kind=Kind.NETWORK, interface="eth0"),
        Sysctl(path="net/ipv4/conf/all/rp_filter", value="1", kind=Kind.NETWORK),
        Sysctl(path="net/ipv6/neigh/eth1/gc_stale_time", value="60", kind=Kind.NETWORK, interface="eth1"),
    )


@pytest.mark.parametrize(
    "name", ["vm.swappiness", "kernel.panic", "fs.file-max", "kernel.semantics", "fs.mqueuex.y", "network.x"]
)
def test_a_sysctl_of_the_node_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match=r"config\.linux\.sysctls\[.*belongs to the whole node"):
        plan({name: "1"}, ALL)


@pytest.mark.parametrize(
    ("name", "owned"),
    [
        ("net.ipv4.ip_forward", frozenset({Kind.IPC})),
        ("kernel.shmmax", frozenset({Kind.NETWORK, Kind.UTS})),
        ("kernel.domainname", frozenset({Kind.IPC})),
    ],
)
def test_a_sysctl_of_a_namespace_that_the_pod_shares_with_the_node_is_refused(
    name: str, owned: frozenset[Kind]
) -> None:
    with pytest.raises(BadInput, match="the pod uses the node's"):
        plan({name: "1"}, owned)


@pytest.mark.parametrize("value", ["", "1\n2", "1\r", "a\0b", "x" * 4097])
def test_a_value_that_is_more_than_one_line_is_refused(value: str) -> None:
    with pytest.raises(BadInput, match="the value is empty"):
        plan({"net.ipv4.ip_forward": value}, ALL)


def test_the_nodes_defaults_go_where_the_pod_owns_the_namespace_and_sets_nothing_itself() -> None:
    defaults = default_sysctls(["net.ipv4.ip_unprivileged_port_start=0", "kernel.shm_rmid_forced = 1"])
    port, shm = {"net.ipv4.ip_unprivileged_port_start": "0"}, {"kernel.shm_rmid_forced": "1"}
    node = NamespaceMode.NODE

    assert defaults == {**port, **shm}
    assert with_defaults({}, defaults, NamespaceOptions()) == defaults
    assert with_defaults({}, defaults, NamespaceOptions(network=node)) == shm
    assert with_defaults({}, defaults, NamespaceOptions(ipc=node)) == port
    asked = {"net/ipv4/ip_unprivileged_port_start": "9"}
    assert with_defaults(asked, defaults, NamespaceOptions()) == {**shm, **asked}


def test_a_range_of_groups_is_no_default_in_a_user_namespace() -> None:
    one = (IdMapping(host_id=1, container_id=0, length=1),)
    defaults = {"net.ipv4.ping_group_range": "0 2147483647"}
    user = UserNamespace(uids=one, gids=one)

    assert with_defaults({}, defaults, NamespaceOptions(user=user)) == {}
    assert with_defaults(defaults, {}, NamespaceOptions(user=user)) == defaults


def test_a_default_of_the_whole_node_is_refused() -> None:
    with pytest.raises(
        BadInput, match=r"^containers.default_sysctls: vm.swappiness belongs to the whole node"
    ):
        default_sysctls(["vm.swappiness=0"])
