"""A machine that falls or is rebooted under kubelet's pods: they come back, nothing leaks, and what was owed
to plugins is paid.

Runs in the virtual machine alone, over three boots: `tests/node/run.sh --boots 3 tests/node/test_reboot.py`.
The first boot ends by a reset without warning, as a power cut; the second as systemd does it.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from api.proto import cri_pb2
from tests import leaks, machine
from tests.daemon import CALL_LIMIT, TREE
from tests.images.registry import Registry
from tests.kubelet.kubelet import NODE
from tests.kubelet.manifests import IDLE, pod, sh
from tests.node.operating import configure, run, runtime
from tests.parts.build import program

BOOT, BOOTS = (int(os.environ.get(name, "0")) for name in ("NODE_BOOT", "NODE_BOOTS"))
pytestmark = pytest.mark.skipif(
    BOOTS != 3,
    reason="only in the virtual machine: tests/node/run.sh --boots 3 tests/node/test_reboot.py",
)
first = pytest.mark.skipif(BOOT != 1, reason="for the first boot alone")
later = pytest.mark.skipif(BOOT == 1, reason="for what comes after a reboot")

LIMIT = 180.0 * machine.PATIENCE  # seconds that a state is waited for
NAMES = ("served", "stores", "plain")
LEASES = Path("/var/lib/cni/networks")
MANIFESTS = Path("/etc/kubernetes/manifests")
SEEN = Path("/var/lib/seen.json")
REFUSES = Path("/run/refuses-del")
"""While it is there the plugin refuses to give an address back; /run goes with the boot."""

_PLUGIN = f"""\
#!/bin/sh
if [ "$CNI_COMMAND" = DEL ] && [ -e {REFUSES} ]; then
    cat >/dev/null
    echo '{{"cniVersion": "1.0.0", "code": 999, "msg": "not today"}}'
    exit 1
fi
exec /usr/lib/cni/bridge
"""
_NETWORK = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge", "bridge": "pods0", "isGateway": True, "ipMasq": True,
            "ipam": {
                "type": "host-local", "ranges": [[{"subnet": "10.91.0.0/24"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}  # fmt: skip
_KUBELET = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "address": "127.0.0.1",
    "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
    "authorization": {"mode": "AlwaysAllow"},
    "staticPodPath": str(MANIFESTS),
    "containerRuntimeEndpoint": "unix:///run/crisp/crisp.sock",
    "failSwapOn": False,
    "enforceNodeAllocatable": [],
    "evictionHard": {"memory.available": "1Mi"},
    "resolvConf": "",
}
_UNIT = """\
[Unit]
After=crispd.service
[Service]
ExecStart={program} --config=/etc/kubernetes/kubelet.yaml --hostname-override={node}
Restart=always
KillMode=process
[Install]
WantedBy=multi-user.target
"""


@pytest.fixture
def leak_scope() -> leaks.Scope:
    """kubelet and crispd go on over the boots; what must be left is compared by the tests themselves."""
    return leaks.Scope(expected=("*",))


@pytest.fixture(scope="module")
def node(prepared_machine: None, image_registry: Registry) -> Iterator[None]:
    """crispd and kubelet as services of the machine, which systemd starts at every boot."""
    run("sh", TREE / "deploy/install.sh", "--no-packages", "--wheels", "/opt/wheels", limit=1500)
    configure(image_registry, builtin=False)
    plugin = Path("/opt/cni/bin/bridge")
    for path in (plugin, MANIFESTS, Path("/etc/cni/net.d/x"), Path("/etc/systemd/system/x")):
        path.parent.mkdir(parents=True, exist_ok=True)
    MANIFESTS.mkdir(exist_ok=True)
    plugin.write_text(_PLUGIN)
    plugin.chmod(0o755)
    Path("/etc/cni/net.d/10-pods.conflist").write_text(json.dumps(_NETWORK))
    Path("/etc/kubernetes/kubelet.yaml").write_text(json.dumps(_KUBELET))
    shutil.copy(program("kubelet", "kubelet"), "/usr/local/bin/kubelet")
    Path("/etc/systemd/system/kubelet.service").write_text(
        _UNIT.format(program="/usr/local/bin/kubelet", node=NODE)
    )
    run("systemctl", "daemon-reload")
    run("systemctl", "enable", "--now", "crispd", "kubelet")
    yield


def pods() -> list[Any]:
    """Every sandbox that the runtime lists; none while it does not answer."""
    try:
        return list(runtime().ListPodSandbox(cri_pb2.ListPodSandboxRequest(), timeout=CALL_LIMIT).items)
    except grpc.RpcError:
        return []


def ready() -> dict[str, Any]:
    """The sandboxes that are ready, by their pods' names."""
    states = (one for one in pods() if one.state == cri_pb2.SANDBOX_READY)
    return {one.metadata.name.removesuffix(f"-{NODE}"): one for one in states}


def containers() -> list[Any]:
    listed = runtime().ListContainers(cri_pb2.ListContainersRequest(), timeout=CALL_LIMIT)
    return list(listed.containers)


def running() -> set[str]:
    """The sandboxes in which a container runs."""
    return {one.pod_sandbox_id for one in containers() if one.state == cri_pb2.CONTAINER_RUNNING}


def address(sandbox: str) -> str:
    asked = cri_pb2.PodSandboxStatusRequest(pod_sandbox_id=sandbox)
    told: Any = runtime().PodSandboxStatus(asked, timeout=CALL_LIMIT)
    return str(told.status.network.ip)


def owners() -> dict[str, str]:
    """host-local's leases: the sandbox that each address was given to."""
    return {
        path.name: path.read_text().split()[0]
        for path in (LEASES / "pods").iterdir()
        if path.name[0].isdigit()
    }


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not holds():
        assert time.monotonic() < deadline, (what, [str(one) for one in pods()], owners())
        time.sleep(0.5)


def until_up(*names: str) -> dict[str, Any]:
    until(
        lambda: set(ready()) == set(names) and running() >= {one.id for one in ready().values()},
        f"up are {names}",
    )
    return ready()


@first
def test_pods_run_and_one_of_them_owes_its_address(node: None) -> None:
    serve = f"mkdir /www; echo from the pod >/www/index.html; httpd -p 8081 -h /www; {IDLE}"
    ports = [{"containerPort": 8081, "hostPort": 18081}]
    mount = [{"name": "kept", "mountPath": "/kept"}]
    kept = [{"name": "kept", "hostPath": {"path": "/var/kept", "type": "DirectoryOrCreate"}}]
    for manifest in (
        pod("served", sh("main", serve, ports=ports)),
        pod("stores", sh("main", f"date >>/kept/starts; {IDLE}", volumeMounts=mount), volumes=kept),
        pod("plain", sh("main", IDLE), sh("side", IDLE)),
        pod("leaves", sh("main", IDLE)),
    ):
        (MANIFESTS / f"{manifest['metadata']['name']}.json").write_text(json.dumps(manifest))
    found = until_up(*NAMES, "leaves")
    leaves = found["leaves"].id
    given = address(leaves)
    assert owners()[given] == leaves
    REFUSES.touch()
    (MANIFESTS / "leaves.json").unlink()
    until(lambda: leaves not in running(), "the pod has ended")
    until(
        lambda: "not today" in run("journalctl", "--unit", "crispd", "--output", "cat", "--no-pager"),
        "the plugin has refused",
    )
    assert owners()[given] == leaves
    SEEN.write_text(json.dumps({name: one.id for name, one in found.items()}))
    os.sync()  # what comes next is no power cut of the tests' own files


@later
def test_pods_are_back_after_a_reboot() -> None:
    """kubelet makes new sandboxes: the old ones' namespaces went with the boot."""
    before = json.loads(SEEN.read_text())
    now = until_up(*NAMES)
    assert not {one.id for one in now.values()} & set(before.values())
    starts = Path("/var/kept/starts").read_text().splitlines()
    assert len(starts) >= BOOT
    SEEN.write_text(json.dumps({**before, **{name: one.id for name, one in now.items()}}))


@later
def test_what_was_owed_is_paid_and_nothing_else_is_left_after_a_reboot() -> None:
    now = until_up(*NAMES)
    ids = {one.id for one in now.values()}
    until(lambda: set(owners().values()) == ids, "only pods that run have addresses")
    assert {address(id_) for id_ in ids} == set(owners())
    # kubelet keeps the last ended container of each, and its pod, to tell of it; what it has been told to
    # forget is nowhere.
    state = Path("/var/lib/crisp")
    until(
        lambda: (
            {path.name for path in (state / "pods").iterdir()} == {one.id for one in pods()}
            and {path.name for path in (state / "containers").iterdir()} == {one.id for one in containers()}
        ),
        "what is on disk is what is listed",
    )
    namespaces = [name for name in leaks.network_namespaces() if name.startswith("crisp")]
    assert sorted(namespaces) == sorted(f"crisp-{id_}" for id_ in ids), namespaces
    assert len([name for name in leaks.links() if name.startswith("veth")]) == len(ids)
    alive = {one.id for one in containers() if one.state == cri_pb2.CONTAINER_RUNNING}
    mounts = [mount for mount in leaks.mounts() if "/crisp/" in mount or "/run/netns/" in mount]
    strange = [mount for mount in mounts if not any(id_ in mount for id_ in ids | alive)]
    pins = "/run/crisp/ns ("  # the directory that namespaces are pinned in
    assert [mount for mount in strange if "/images/" not in mount and not mount.startswith(pins)] == []
    monitors = [line for line in leaks.processes() if ": conmon:" in line]
    assert len(monitors) == len(alive), monitors
    scopes = [group for group in leaks.cgroups() if group.endswith(".scope") and "/crisp-" in group]
    assert [group for group in scopes if not any(id_ in group for id_ in ids | alive)] == []
    rules = [rule for rule in leaks.firewall() if "10.91.0." in rule]
    assert [rule for rule in rules if not any(f"{own}" in rule for own in (*owners(), "10.91.0.0/24"))] == []
    journal = run("journalctl", "--boot", "--unit", "crispd", "--output", "cat", "--no-pager")
    assert "Traceback" not in journal
    assert "from the pod" in run("curl", "-sf", f"http://{address(now['served'].id)}:8081/index.html")
