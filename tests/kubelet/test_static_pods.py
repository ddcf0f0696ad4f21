"""What a pod asks of kubelet is so, with Crisp under it: a kubelet without control plane and its static
pods.
"""

from __future__ import annotations

import re
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kubelet.kubelet import NODE, Kubelet
from tests.kubelet.manifests import IDLE, pod, sh
from tests.machine import PATIENCE


def test_a_pod_runs_with_its_name_address_environment_and_log(node: Kubelet) -> None:
    downward = [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    volume = {"name": "info", "downwardAPI": {"items": [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
    ]}}  # fmt: skip
    mount = [{"name": "info", "mountPath": "/info"}]
    manifest = pod(
        "plain", sh("main", f"echo hello; {IDLE}", env=downward, volumeMounts=mount), volumes=[volume]
    )
    manifest["metadata"]["labels"] = {"app": "plain"}
    node.apply(manifest)
    node.until_ready("plain")
    address = node.status("plain")["podIP"]
    assert node.run("plain", "main", "hostname").strip() == f"plain-{NODE}"
    assert f"IP={address}\n" in node.run("plain", "main", "env")
    assert address in node.run("plain", "main", "ip", "-4", "addr", "show", "dev", "eth0")
    assert 'app="plain"' in node.run("plain", "main", "cat", "/info/labels")
    assert node.logs("plain", "main") == "hello\n"


def test_init_containers_come_in_order_and_a_sidecar_stays_beside_the_rest(node: Kubelet) -> None:
    shared = [{"name": "all", "mountPath": "/all"}]

    def note(name: str, script: str = "", **more: object) -> dict[str, object]:
        return sh(name, f"echo {name} >>/all/order; {script}", volumeMounts=shared, **more)

    node.apply(
        pod(
            "ordered",
            note("main", IDLE),
            volumes=[{"name": "all", "emptyDir": {}}],
            initContainers=[note("first"), note("beside", IDLE, restartPolicy="Always"), note("second")],
        )
    )
    node.until_ready("ordered")
    assert node.run("ordered", "main", "cat", "/all/order").split() == ["first", "beside", "second", "main"]
    assert "running" in node.container("ordered", "beside")["state"]
    assert node.container("ordered", "first")["state"]["terminated"]["reason"] == "Completed"


def test_probes_of_every_kind_make_a_pod_ready_and_a_failing_one_restarts_its_container(
    node: Kubelet,
) -> None:
    serve = "mkdir /www; echo ok >/www/index.html; httpd -p 8080 -h /www; touch /alive; " + IDLE
    quick = {"periodSeconds": 1, "timeoutSeconds": 5}
    node.apply(
        pod(
            "probed",
            sh("http", serve, readinessProbe={"httpGet": {"path": "/index.html", "port": 8080}, **quick}),
            sh("tcp", IDLE, readinessProbe={"tcpSocket": {"port": 8080}, **quick}),
            sh(
                "exec",
                "touch /alive; " + IDLE,
                startupProbe={"exec": {"command": ["cat", "/alive"]}, "failureThreshold": 30, **quick},
                livenessProbe={"exec": {"command": ["cat", "/alive"]}, "failureThreshold": 1, **quick},
            ),
        )
    )
    node.until_ready("probed")
    assert node.container("probed", "exec")["started"] is True
    node.run("probed", "exec", "rm", "/alive")
    node.until(
        lambda: node.container("probed", "exec")["restartCount"] == 1, "the probe's container is restarted"
    )
    assert [node.container("probed", name)["restartCount"] for name in ("http", "tcp")] == [0, 0]
    node.until_ready("probed")


def test_an_end_is_told_with_its_reason_and_code_and_restarted_as_the_policy_says(node: Kubelet) -> None:
    node.apply(pod("good", sh("main", "exit 0"), restartPolicy="OnFailure"))
    node.apply(
        pod("bad", sh("main", "echo the last word >/dev/termination-log; exit 3"), restartPolicy="Never")
    )
    node.apply(pod("again", sh("main", "exit 4"), restartPolicy="Always"))
    node.until(lambda: node.status("good").get("phase") == "Succeeded", "good has succeeded")
    node.until(lambda: node.status("bad").get("phase") == "Failed", "bad has failed")
    ends = [node.container(name, "main")["state"]["terminated"] for name in ("good", "bad")]
    assert [(end["reason"], end["exitCode"], end.get("message", "")) for end in ends] == [
        ("Completed", 0, ""), ("Error", 3, "the last word\n"),
    ]  # fmt: skip
    node.until(lambda: node.container("again", "main").get("restartCount", 0) >= 1, "again is started again")
    node.until(
        lambda: (
            node.container("again", "main")["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff"
        ),
        "again is held back",
    )


def test_a_program_that_is_not_there_is_told_as_the_start_that_failed(node: Kubelet) -> None:
    node.apply(pod("missing", {"name": "main", "command": ["/no/such/program"]}, restartPolicy="Never"))
    node.until(lambda: node.status("missing").get("phase") == "Failed", "missing has failed")
    end = node.container("missing", "main")["state"]["terminated"]
    assert (end["reason"], end["exitCode"]) == ("StartError", 128)
    assert "/no/such/program" in end["message"]


def test_memory_over_the_limit_is_told_as_oomkilled(node: Kubelet) -> None:
    eat = "x=$(head -c 1000000 /dev/zero | tr '\\0' x); while :; do x=$x$x; done"
    limits = {"limits": {"memory": "24Mi"}}
    node.apply(pod("hungry", sh("main", eat, resources=limits), sh("other", IDLE), restartPolicy="Never"))
    node.until(lambda: "terminated" in node.container("hungry", "main").get("state", {}), "main has ended")
    end = node.container("hungry", "main")["state"]["terminated"]
    assert (end["reason"], end["exitCode"]) == ("OOMKilled", 137)
    assert "running" in node.container("hungry", "other")["state"]


def test_limits_are_in_the_kernel(node: Kubelet) -> None:
    resources = {"requests": {"cpu": "100m", "memory": "16Mi"}, "limits": {"cpu": "250m", "memory": "32Mi"}}
    node.apply(pod("limited", sh("main", IDLE, resources=resources)))
    node.until_ready("limited")
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    memory, cpu = (
        ("memory.max", "cpu.max") if unified
        else ("memory/memory.limit_in_bytes", "cpu/cpu.cfs_quota_us")
    )  # fmt: skip
    assert int(node.run("limited", "main", "cat", f"/sys/fs/cgroup/{memory}")) == 32 << 20
    assert node.run("limited", "main", "cat", f"/sys/fs/cgroup/{cpu}").split()[0] == "25000"


def test_a_pod_that_is_withdrawn_gets_its_hook_and_its_grace(node: Kubelet, tmp_path: Path) -> None:
    note = {"name": "out", "mountPath": "/out"}
    life = {"preStop": {"exec": {"command": ["sh", "-c", "echo hook >>/out/order"]}},
            "postStart": {"exec": {"command": ["sh", "-c", "echo start >>/out/order"]}}}  # fmt: skip
    script = "trap 'echo term >>/out/order; exit 0' TERM; while :; do sleep 0.1; done"
    node.apply(
        pod(
            "leaving",
            sh("main", script, volumeMounts=[note], lifecycle=life),
            volumes=[{"name": "out", "hostPath": {"path": str(tmp_path)}}],
            terminationGracePeriodSeconds=20,
        )
    )
    node.until_ready("leaving")
    node.withdraw("leaving")
    node.until(lambda: not node.runs("leaving"), "the pod is gone")
    assert (tmp_path / "order").read_text().split() == ["start", "hook", "term"]


def test_host_network_host_port_and_a_shared_pid_namespace(node: Kubelet) -> None:
    serve = "mkdir /www; echo from the pod >/www/index.html; httpd -p 8081 -h /www; " + IDLE
    ports = [{"containerPort": 8081, "hostPort": 18081, "hostIP": "127.0.0.1"}]
    node.apply(pod("ported", sh("main", serve, ports=ports)))
    node.apply(pod("hosted", sh("main", IDLE), hostNetwork=True))
    node.apply(
        pod(
            "together", sh("one", "exec sleep 1000"), sh("two", "exec sleep 1001"), shareProcessNamespace=True
        )
    )
    node.until_ready("ported", "hosted", "together")
    with urllib.request.urlopen("http://127.0.0.1:18081/index.html", timeout=10 * PATIENCE) as page:
        assert page.read() == b"from the pod\n"
    links = node.run("hosted", "main", "ip", "-o", "link")
    ours = Path("/proc/net/dev").read_text().splitlines()[2:]
    assert {line.split(":")[0].strip() for line in ours} <= set(re.findall(r"\d+: ([^:@]+)", links))
    seen = node.run("together", "one", "ps", "-o", "args")
    assert "sleep 1000" in seen
    assert "sleep 1001" in seen


def test_a_volume_is_seen_as_asked(node: Kubelet, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/file").write_text("below\n")
    volumes = [{"name": "host", "hostPath": {"path": str(tmp_path)}},
               {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]  # fmt: skip
    mounts = [
        {"name": "host", "mountPath": "/below", "subPath": "sub", "readOnly": True},
        {"name": "memory", "mountPath": "/memory"},
    ]
    node.apply(pod("volumes", sh("main", IDLE, volumeMounts=mounts), volumes=volumes))
    node.until_ready("volumes")
    assert node.run("volumes", "main", "cat", "/below/file") == "below\n"
    table = node.run("volumes", "main", "cat", "/proc/mounts").splitlines()
    found = {line.split()[1]: line.split() for line in table if line.split()[1] in ("/below", "/memory")}
    assert found["/below"][3].split(",")[0] == "ro"
    assert found["/memory"][2] == "tmpfs"
    assert "size=1024k" in found["/memory"][3]


@contextmanager
def in_memory(point: Path) -> Iterator[None]:
    """A file system that holds a file `here` is mounted there within the block."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "propagated", point], check=True)
    try:
        (point / "here").write_text("")
        yield
    finally:
        subprocess.run(["umount", point], check=True)


def test_mounts_made_later_go_where_a_volume_s_propagation_lets_them(node: Kubelet, tmp_path: Path) -> None:
    for name in ("before", "ours", "theirs", "sub/ours"):
        (tmp_path / name).mkdir(parents=True)

    def seeing(name: str, propagation: str, **more: object) -> dict[str, object]:
        whole = {"name": "host", "mountPath": "/v", "mountPropagation": propagation}
        return sh(name, IDLE, volumeMounts=[whole, {**whole, "mountPath": "/s", "subPath": "sub"}], **more)

    def seen(name: str) -> set[str]:
        found = node.run("spread", name, "find", "/v", "/s", "-name", "here").split()
        return {path.removesuffix("/here") for path in found}

    with in_memory(tmp_path / "before"):
        node.apply(
            pod(
                "spread",
                seeing("none", "None"),
                seeing("inwards", "HostToContainer"),
                seeing("both", "Bidirectional", securityContext={"privileged": True}),
                volumes=[{"name": "host", "hostPath": {"path": str(tmp_path)}}],
            )
        )
        node.until_ready("spread")
        with in_memory(tmp_path / "ours"), in_memory(tmp_path / "sub/ours"):
            later = {"/v/ours", "/v/sub/ours", "/s/ours"}
            assert [seen(name) - {"/v/before"} for name in ("none", "inwards", "both")] == [
                set(), later, later,
            ]  # fmt: skip
            assert all("/v/before" in seen(name) for name in ("none", "inwards", "both"))
        assert [seen(name) for name in ("inwards", "both")] == [{"/v/before"}] * 2
        node.run("spread", "both", "mount", "-t", "tmpfs", "propagated", "/v/theirs")
        try:
            assert (tmp_path / "theirs").is_mount()
            (tmp_path / "theirs/here").write_text("")
            assert [seen(name) for name in ("none", "inwards", "both")] == [
                {"/v/before"}, {"/v/before", "/v/theirs"}, {"/v/before", "/v/theirs"},
            ]  # fmt: skip
        finally:
            subprocess.run(["umount", tmp_path / "theirs"], check=True)
        node.withdraw("spread")
        node.until(lambda: not node.runs("spread"), "the pod is gone")
        assert (tmp_path / "before/here").exists()
