"""Pod networks with scripted plugins: what they are asked, and what becomes of each way to fail."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from oci.cni import NetworkRequest, NetworkResult
from oci.cni.result import PluginFailed
from oci.errors import Absent, BadInput, Busy, Deadline, Full, Internal
from oci.workload import DnsConfig, PodId, PodMetadata, PortMapping
from shim import process
from shim.network.network import Limits, Network
from tests.doubles.cni import CniPlugins, conflist

T = TypeVar("T")
POD, OTHER = PodId("ab" * 32), PodId("cd" * 32)


class Node:
    """One node's directories, its scripted plugins, and requests for its pods."""

    def __init__(self, directory: Path) -> None:
        self.conf_dir = directory / "net.d"
        self.conf_dir.mkdir()
        self.cache_dir = directory / "cache"
        self.netns = Path("/proc/self/ns/net")  # a namespace, which scripted plugins leave as it is
        self.plugins = CniPlugins(directory / "cni")

    def configure(self, document: dict[str, Any], name: str = "10-pods.conflist") -> None:
        (self.conf_dir / name).write_text(json.dumps(document))

    def network(self, **options: Any) -> Network:
        return Network(
            conf_dir=self.conf_dir, bin_dirs=(self.plugins.bin_dir,), cache_dir=self.cache_dir, **options
        )

    def request(self, pod: PodId = POD, **changes: Any) -> NetworkRequest:
        metadata = PodMetadata(name="web", namespace="shop", uid="u1")
        plain = NetworkRequest(pod_id=pod, metadata=metadata, netns=str(self.netns))
        return replace(plain, **changes)

    def kept(self) -> list[str]:
        return sorted(entry.name for entry in self.cache_dir.iterdir())


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def go(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work, debug=True)


async def started(network: Network) -> Network:
    await network.start()
    return network


async def attached(network: Network, request: NetworkRequest) -> NetworkResult:
    """Attach with a network that is started and closed around it."""
    await network.start()
    try:
        return await network.attach(request)
    finally:
        await network.close()


async def detached(network: Network, request: NetworkRequest) -> None:
    await network.start()
    try:
        await network.detach(request)
    finally:
        await network.close()


def test_a_chain_is_added_in_order_and_deleted_in_reverse_with_the_result(node: Node) -> None:
    node.configure(conflist("one", "two"))
    request = node.request(
        port_mappings=(PortMapping(protocol="TCP", container_port=80, host_port=8080),),
        dns=DnsConfig(servers=("10.0.0.10",)),
    )
    node.plugins.script({"one ADD": {"do": "succeed", "addresses": ["fd00::5/64", "10.99.0.5/24"]}})
    result = go(attached(node.network(), request))
    assert result == NetworkResult(interface="eth0", addresses=("10.99.0.5", "fd00::5"), networks=("pods",))
    go(detached(node.network(), request))
    assert node.plugins.asked() == ["one ADD", "two ADD", "two DEL", "one DEL"]
    first, second, *deletes = node.plugins.calls()
    assert first.environment == {
        "CNI_COMMAND": "ADD",
        "CNI_PATH": str(node.plugins.bin_dir),
        "CNI_CONTAINERID": POD,
        "CNI_NETNS": str(node.netns),
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;"
        f"K8S_POD_INFRA_CONTAINER_ID={POD};K8S_POD_UID=u1",
    }
    assert first.path == process.PATH
    assert first.config == {
        "type": "one",
        "name": "pods",
        "cniVersion": "1.0.0",
        "runtimeConfig": {
            "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""}],
            "dns": {"servers": ["10.0.0.10"], "searches": [], "options": []},
        },
    }
    answer = second.config["prevResult"]
    assert [entry["address"] for entry in answer["ips"]] == ["fd00::5/64", "10.99.0.5/24"]
    for call, name in zip(deletes, ("two", "one"), strict=True):
        assert call.environment == first.environment | {"CNI_COMMAND": "DEL"}
        assert call.config == first.config | {"type": name, "prevResult": answer}
    assert node.kept() == []


@pytest.mark.parametrize("left", ["nothing", "a plain file"])
def test_a_pod_is_detached_as_it_was_attached_with_configuration_and_namespace_gone(
    node: Node, tmp_path: Path, left: str
) -> None:
    gone = tmp_path / "netns"
    if left == "a plain file":  # what a bind mount leaves
        gone.touch()
    node.configure(conflist("one", "two"))
    go(attached(node.network(), node.request()))
    shutil.rmtree(node.conf_dir)
    go(detached(node.network(), node.request(netns=str(gone))))
    assert node.plugins.asked()[2:] == ["two DEL", "one DEL"]
    assert {call.environment["CNI_NETNS"] for call in node.plugins.calls()[2:]} == {""}
    assert {"prevResult"} <= set(node.plugins.calls()[3].config)
    assert node.kept() == []


def test_detaching_again_or_what_was_never_attached_succeeds(node: Node) -> None:
    go(detached(node.network(), node.request()))
    assert node.plugins.asked() == []
    node.configure(conflist("one"))
    go(detached(node.network(), node.request()))  # something may be left of an attach that was not kept
    assert node.plugins.asked() == ["one DEL"]


def test_a_container_that_a_plugin_does_not_know_is_detached(node: Node) -> None:
    node.configure(conflist("one", "two"))
    go(attached(node.network(), node.request()))
    node.plugins.script({"two DEL": {"do": "fail", "code": 3, "msg": "no such container"}})
    go(detached(node.network(), node.request()))
    assert (node.plugins.asked()[2:], node.kept()) == (["two DEL", "one DEL"], [])


def test_a_failed_delete_is_owed_and_succeeds_when_it_is_repeated(node: Node) -> None:
    node.configure(conflist("one", "two"))
    go(attached(node.network(), node.request()))
    node.plugins.script({"one DEL": {"do": "fail", "code": 100, "msg": "ipam is down"}})
    with pytest.raises(PluginFailed, match=r"CNI DEL, network pods, plugin one: ipam is down \(code 100\)"):
        go(detached(node.network(), node.request()))
    assert node.kept() == [f"{POD}.json"]
    node.plugins.script({})
    go(detached(node.network(), node.request()))
    assert node.kept() == []


@pytest.mark.parametrize(
    ("entry", "kind", "words"),
    [
        ({"do": "fail", "code": 11, "msg": "agent is starting"}, Busy, "agent is starting .*try again later"),
        (
            {"do": "fail", "code": 7, "msg": "no bridge", "details": "br9"},
            PluginFailed,
            "no bridge: br9 .*code 7",
        ),
        (
            {"do": "say", "text": "Segmentation fault"},
            PluginFailed,
            "the answer is no JSON: 'Segmentation fault'",
        ),
        ({"do": "say", "text": ""}, PluginFailed, "the answer is no JSON"),
        ({"do": "say", "text": '{"ips": 1}'}, PluginFailed, "the result's ips: "),
        ({"do": "say", "text": "oops", "status": 3}, PluginFailed, "status 3: 'oops'"),
        ({"do": "say", "text": "x" * 5_000_000}, PluginFailed, "the answer is no JSON: 'xxx"),
        ({"do": "die", "signal": 9}, PluginFailed, "killed by signal 9"),
        ({"do": "succeed", "addresses": []}, Internal, "the result has no address for eth0"),
    ],
)
def test_a_failing_add_is_told_apart_and_a_detach_undoes_it(
    node: Node, entry: dict[str, Any], kind: type[Exception], words: str
) -> None:
    node.configure(conflist("one", "two"))
    node.plugins.script({"two ADD": entry} if entry["do"] != "succeed" else {"one ADD": entry})
    with pytest.raises(kind, match=words):
        go(attached(node.network(), node.request()))
    assert node.kept() == [f"{POD}.json"]
    go(detached(node.network(), node.request()))
    assert node.plugins.asked() == ["one ADD", "two ADD", "two DEL", "one DEL"]
    assert node.kept() == []


def living(pid: int) -> bool:
    """Whether a process that was killed is still there after the time that dying takes."""
    try:
        return not go(process.wait_gone(process.reference(pid), 5))
    except Absent:
        return False


@pytest.mark.parametrize("entry", [{}, {"ignore_term": True}, {"child": True}])
def test_a_plugin_that_hangs_is_killed_with_its_children_when_the_time_is_up(
    node: Node, monkeypatch: pytest.MonkeyPatch, entry: dict[str, Any]
) -> None:
    monkeypatch.setattr(process.Child.end, "__kwdefaults__", {"grace": 0.2})
    node.configure(conflist("one", "two"))
    node.plugins.script({"two ADD": {"do": "hang"} | entry, "two DEL": {"do": "hang"} | entry})
    limits = Limits(add=1.0, delete=1.0)
    with pytest.raises(
        Deadline, match=r"CNI ADD to network pods: .*two did not end within .* \(limit 1 s in all\)"
    ):
        go(attached(node.network(limits=limits), node.request()))
    with pytest.raises(Deadline, match=r"CNI DEL from network pods: .*two did not end"):
        go(detached(node.network(limits=limits), node.request()))
    pids = [call.pid for call in node.plugins.calls()]
    if (child := node.plugins.directory / "child").exists():
        pids.append(int(child.read_text()))
    assert [pid for pid in pids if living(pid)] == []
    node.plugins.script({})
    go(detached(node.network(), node.request()))
    assert node.kept() == []


def test_a_cancel_in_the_middle_of_add_ends_the_plugin_and_a_detach_undoes_it(node: Node) -> None:
    node.configure(conflist("one", "two"))
    pipe = node.plugins.pipe("started")
    node.plugins.script({"two ADD": {"do": "hang", "started": pipe}})

    async def main() -> None:
        network = await started(node.network())
        task = asyncio.ensure_future(network.attach(node.request()))
        await asyncio.to_thread(lambda: Path(pipe).open("rb").close())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await network.detach(node.request())
        await network.close()

    go(main())
    assert [call.pid for call in node.plugins.calls() if living(call.pid)] == []
    assert node.plugins.asked() == ["one ADD", "two ADD", "two DEL", "one DEL"]
    assert node.kept() == []


def test_a_plugin_that_answers_late_but_in_time_has_succeeded(node: Node) -> None:
    node.configure(conflist("one"))
    go_on = node.plugins.pipe("go-on")
    node.plugins.script({"one ADD": {"do": "succeed", "until": go_on}})

    async def main() -> NetworkResult:
        network = await started(node.network())
        try:
            task = asyncio.ensure_future(network.attach(node.request()))
            await asyncio.to_thread(lambda: Path(go_on).open("wb").close())
            return await task
        finally:
            await network.close()

    assert go(main()).addresses == ("10.99.0.5",)


def test_a_name_that_would_inject_arguments_reaches_no_plugin(node: Node) -> None:
    node.configure(conflist("one"))
    bad = PodMetadata(name="web;CNI_IFNAME=eth9", namespace="shop", uid="u1")
    with pytest.raises(BadInput, match=r"config\.metadata\.name: "):
        go(attached(node.network(), node.request(metadata=bad)))
    go(detached(node.network(), node.request(metadata=bad)))
    assert (node.plugins.asked(), node.kept()) == ([], [])


def test_without_a_configuration_attaching_is_refused_for_now(node: Node) -> None:
    with pytest.raises(Busy, match=f"no CNI configuration in {node.conf_dir}"):
        go(attached(node.network(), node.request()))
    assert node.kept() == []


def test_a_missing_plugin_is_named_with_where_it_was_looked_for(node: Node) -> None:
    node.configure(conflist("absent"))
    with pytest.raises(Internal, match=f"CNI ADD, .*plugin absent is in none of {node.plugins.bin_dir}"):
        go(attached(node.network(), node.request()))


def test_several_networks_are_attached_in_name_order_and_detached_in_reverse(node: Node) -> None:
    node.configure(conflist("one", name="first"), "10.conflist")
    node.configure(conflist("two", name="second", version="0.3.1"), "20.conflist")
    node.plugins.script({"two ADD": {"do": "succeed", "addresses": ["10.5.0.9/24"]}})
    result = go(attached(node.network(max_confs=2), node.request()))
    assert result == NetworkResult(interface="eth0", addresses=("10.99.0.5",), networks=("first", "second"))
    go(detached(node.network(), node.request()))
    shown = [(call.plugin, call.verb, call.environment["CNI_IFNAME"]) for call in node.plugins.calls()]
    assert shown == [
        ("one", "ADD", "eth0"),
        ("two", "ADD", "eth1"),
        ("two", "DEL", "eth1"),
        ("one", "DEL", "eth0"),
    ]
    with_result = ["prevResult" in call.config for call in node.plugins.calls()[2:]]
    assert with_result == [False, True]  # 0.3.1 has no result in DEL


def test_a_network_that_fails_to_detach_does_not_keep_the_others(node: Node) -> None:
    node.configure(conflist("one", name="first"), "10.conflist")
    node.configure(conflist("two", name="second"), "20.conflist")
    go(attached(node.network(max_confs=2), node.request()))
    node.plugins.script({"two DEL": {"do": "fail", "code": 5, "msg": "broken"}})
    with pytest.raises(PluginFailed, match="network second"):
        go(detached(node.network(), node.request()))
    assert node.plugins.asked()[2:] == ["two DEL", "one DEL"]


@pytest.mark.parametrize(
    ("document", "asked"),
    [
        (conflist("one", "two"), ["one CHECK", "two CHECK"]),
        (conflist("one", disableCheck=True), []),
        (conflist("one", version="0.3.1"), []),
    ],
)
def test_check_is_asked_where_the_configuration_has_it(
    node: Node, document: dict[str, Any], asked: list[str]
) -> None:
    node.configure(document)

    async def main() -> None:
        network = await started(node.network())
        await network.attach(node.request())
        await network.check(node.request())
        await network.close()

    go(main())
    calls = [call for call in node.plugins.calls() if call.verb == "CHECK"]
    assert [f"{call.plugin} CHECK" for call in calls] == asked
    assert all("prevResult" in call.config for call in calls)


def test_collection_detaches_what_is_not_valid_and_tells_the_plugins_what_is(node: Node) -> None:
    node.configure(conflist("one", version="1.1.0"))

    async def main() -> None:
        network = await started(node.network())
        await network.attach(node.request())
        await network.attach(node.request(OTHER))
        await network.collect([OTHER])
        await network.close()

    go(main())
    assert node.kept() == [f"{OTHER}.json"]
    calls = [call for call in node.plugins.calls() if call.verb in ("DEL", "GC")]
    assert [(call.verb, call.environment.get("CNI_CONTAINERID")) for call in calls] == [
        ("DEL", POD),
        ("GC", None),
    ]
    assert calls[1].config["cni.dev/valid-attachments"] == [{"containerID": OTHER, "ifname": "eth0"}]


async def becomes(network: Network, wanted: tuple[bool, str], changed: asyncio.Event) -> None:
    """Wait until the condition is (ready, a part of the message)."""
    async with asyncio.timeout(20):
        while True:
            changed.clear()
            ready, reason, message = network.condition()
            assert (reason == "") is ready
            if ready == wanted[0] and wanted[1] in message:
                return
            await changed.wait()


def test_readiness_follows_the_directory_also_through_its_removal(node: Node) -> None:
    async def main() -> None:
        changed = asyncio.Event()
        network = await started(node.network(changed=changed.set))
        assert network.condition() == (
            False,
            "NetworkPluginNotReady",
            f"no CNI configuration in {node.conf_dir}",
        )
        node.configure(conflist("one"))
        await becomes(network, (True, ""), changed)
        (node.conf_dir / "10-pods.conflist").write_text("{")
        await becomes(network, (False, "10-pods.conflist: not JSON"), changed)
        node.configure(conflist("one"))
        await becomes(network, (True, ""), changed)
        shutil.rmtree(node.conf_dir)
        await becomes(network, (False, "no CNI configuration"), changed)
        node.conf_dir.mkdir()
        node.configure(conflist("absent"))
        await becomes(network, (False, "plugin absent is in none of"), changed)
        node.plugins.install("absent")
        assert network.condition() == (True, "", "")
        await network.close()

    go(main())


def test_a_plugin_that_has_status_decides_on_readiness(node: Node) -> None:
    node.configure(conflist("one", version="1.1.0"))
    node.plugins.script({"STATUS": {"do": "fail", "code": 50, "msg": "datapath down"}})

    async def main() -> None:
        changed = asyncio.Event()
        network = await started(node.network(changed=changed.set, limits=Limits(status=20.0)))
        ready, _, message = network.condition()
        assert (ready, "datapath down" in message) == (False, True)
        node.plugins.script({})
        (node.conf_dir / "note.txt").touch()  # any change of the directory asks again
        await becomes(network, (True, ""), changed)
        await network.close()

    go(main())
    assert set(node.plugins.asked()) == {"one STATUS"}


def test_an_old_answer_of_status_is_asked_for_anew(node: Node) -> None:
    node.configure(conflist("one", version="1.1.0"))
    node.plugins.script({"STATUS": {"do": "fail", "code": 50, "msg": "datapath down"}})

    async def main() -> None:
        changed = asyncio.Event()
        network = await started(node.network(changed=changed.set))
        node.plugins.script({})
        changed.clear()
        network._asked = -1e9  # as if the answer were old
        assert network.condition()[0] is False
        async with asyncio.timeout(20):
            await changed.wait()
        assert network.condition() == (True, "", "")
        await network.close()

    go(main())


def test_where_nothing_can_be_watched_the_directory_is_read_when_something_asks(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise Full("watching: Too many open files")

    monkeypatch.setattr("shim.network.network.DirectoryWatch", refuse)

    async def main() -> None:
        changed = asyncio.Event()
        network = await started(node.network(changed=changed.set, limits=Limits(status=0.0)))
        assert network.condition()[0] is False
        node.configure(conflist("one"))
        assert (await network.attach(node.request())).addresses == ("10.99.0.5",)
        node.configure(conflist("absent"))
        await becomes(network, (False, "plugin absent is in none of"), changed)
        await network.close()

    go(main())
