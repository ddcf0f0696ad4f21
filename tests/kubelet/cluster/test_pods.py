"""What only a pod of a control plane has: a RuntimeClass, a resize in place, config maps, its own user
namespace.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from api.proto import cri_pb2
from tests.daemon import CALL_LIMIT, TREE
from tests.kubelet.cluster.conftest import Cluster
from tests.kubelet.cluster.control_plane import Failed
from tests.kubelet.inside import pid_of
from tests.kubelet.kubelet import NODE
from tests.kubelet.manifests import IDLE, pod, sh

UNIFIED = Path("/sys/fs/cgroup/cgroup.controllers").exists()


def handler_of(cluster: Cluster, name: str) -> str:
    """The handler that the runtime says it runs a pod with."""
    listed = cluster.daemon.runtime().ListPodSandbox(cri_pb2.ListPodSandboxRequest(), timeout=CALL_LIMIT)
    (found,) = [one.runtime_handler for one in listed.items if one.metadata.name == name]
    return str(found)


def test_the_runtime_classes_of_deploy_choose_the_runtime(cluster: Cluster) -> None:
    plane = cluster.plane
    plane.kubectl("apply", f"--filename={TREE / 'deploy/runtimeclasses'}")
    cluster.run(
        pod("on-crun", sh("main", IDLE), runtimeClassName="crun"),
        pod("on-gvisor", sh("main", IDLE), runtimeClassName="runsc-cli"),
        pod("on-any", sh("main", IDLE)),
    )
    names = ("on-crun", "on-gvisor", "on-any")
    assert [handler_of(cluster, name) for name in names] == ["crun", "runsc-cli", ""]
    ours = Path("/proc/version").read_text()
    assert [plane.kubectl("exec", name, "--", "cat", "/proc/version") == ours for name in names] == [
        True, False, True,
    ]  # fmt: skip
    found = plane.get("pod", "on-gvisor")["spec"]
    assert found["overhead"] == {"memory": "100Mi", "cpu": "50m"}
    assert found["nodeSelector"] == {"handlers.crisp/has-gvisor": "true"}


def test_a_class_that_is_unknown_is_refused_and_one_whose_handler_is_not_here_is_told(
    cluster: Cluster,
) -> None:
    plane = cluster.plane
    with pytest.raises(Failed, match=r"RuntimeClass.*not found"):
        cluster.create(pod("unknown", sh("main", IDLE), runtimeClassName="no-such"))
    nowhere = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass"}
    plane.apply({**nowhere, "metadata": {"name": "nowhere"}, "handler": "nowhere"})
    cluster.create(pod("homeless", sh("main", IDLE), runtimeClassName="nowhere"))
    cluster.kubelet.until(
        lambda: "FailedCreatePodSandBox" in plane.kubectl("describe", "pod", "homeless"),
        "the failure is told",
    )
    assert "nowhere" in plane.kubectl("describe", "pod", "homeless").partition("FailedCreatePodSandBox")[2]


def test_limits_change_in_place(cluster: Cluster) -> None:
    limits = {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "32Mi"}}
    cluster.run(pod("grows", sh("main", IDLE, resources=limits)))
    before = cluster.container("grows", "main")
    wanted = {"requests": {"cpu": "150m", "memory": "48Mi"}, "limits": {"cpu": "300m", "memory": "48Mi"}}
    patch = {"spec": {"containers": [{"name": "main", "resources": wanted}]}}
    cluster.plane.kubectl("patch", "pod", "grows", "--subresource=resize", f"--patch={json.dumps(patch)}")
    memory, cpu = (
        ("memory.max", "cpu.max") if UNIFIED
        else ("memory/memory.limit_in_bytes", "cpu/cpu.cfs_quota_us")
    )  # fmt: skip

    def seen() -> list[str]:
        told = cluster.plane.kubectl(
            "exec", "grows", "--", "cat", f"/sys/fs/cgroup/{memory}", f"/sys/fs/cgroup/{cpu}"
        )
        return [line.split()[0] for line in told.splitlines()]

    cluster.kubelet.until(lambda: seen() == [str(48 << 20), "30000"], "the kernel has the new limits")
    cluster.kubelet.until(
        lambda: cluster.container("grows", "main").get("resources") == wanted, "the status has them too"
    )
    after = cluster.container("grows", "main")
    assert (after["containerID"], after["restartCount"]) == (before["containerID"], 0)


def test_a_pod_sees_config_maps_and_itself(cluster: Cluster) -> None:
    plane = cluster.plane

    def config(value: str) -> dict[str, object]:
        meta = {"name": "config", "namespace": "default"}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"key": value}}

    plane.apply(config("first"))
    fields = {"NODE": "spec.nodeName", "HOST": "status.hostIP", "POD": "metadata.name", "UID": "metadata.uid"}
    env = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()]
    limit = {"containerName": "main", "resource": "limits.memory"}
    env.append({"name": "LIMIT", "valueFrom": {"resourceFieldRef": limit}})
    env.append({"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "config", "key": "key"}}})
    labels = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    manifest = pod(
        "informed",
        sh(
            "main", IDLE, env=env, resources={"limits": {"memory": "64Mi"}},
            volumeMounts=[
                {"name": "config", "mountPath": "/config"},
                {"name": "config", "mountPath": "/etc/one", "subPath": "key"},
                {"name": "info", "mountPath": "/info"},
            ],
        ),
        volumes=[
            {"name": "config", "configMap": {"name": "config"}},
            {"name": "info", "downwardAPI": {"items": [labels]}},
        ],
    )  # fmt: skip
    manifest["metadata"]["labels"] = {"app": "informed"}
    cluster.run(manifest)

    def read(*paths: str) -> list[str]:
        return plane.kubectl("exec", "informed", "--", "cat", *paths).splitlines()

    told = dict(line.split("=", 1) for line in plane.kubectl("exec", "informed", "--", "env").splitlines())
    meta = plane.get("pod", "informed")["metadata"]
    assert {name: told[name] for name in ("NODE", "HOST", "POD", "UID", "LIMIT", "KEY")} == {
        "NODE": NODE, "HOST": cluster.plane.address, "POD": "informed", "UID": meta["uid"],
        "LIMIT": str(64 << 20), "KEY": "first",
    }  # fmt: skip
    assert plane.kubectl("exec", "informed", "--", "cat", "/config/key", "/etc/one") == "firstfirst"
    assert read("/info/labels") == ['app="informed"']
    plane.apply(config("second"))
    plane.kubectl("label", "pod", "informed", "more=yes")
    cluster.kubelet.until(
        lambda: (
            read("/config/key") == ["second"] and read("/info/labels") == ['app="informed"', 'more="yes"']
        ),
        "the files follow",
    )
    assert read("/etc/one") == ["first"]  # a subPath stays what it was, as Kubernetes says


def test_root_of_a_pod_with_users_of_its_own_is_nobody_here(cluster: Cluster) -> None:
    plane = cluster.plane
    plane.kubectl("apply", f"--filename={TREE / 'deploy/runtimeclasses/runc-new.yaml'}")
    mount = [{"name": "scratch", "mountPath": "/scratch"}]
    main = sh("main", f"touch /scratch/file; {IDLE}", volumeMounts=mount)
    scratch = [{"name": "scratch", "emptyDir": {}}]
    cluster.run(pod("shifted", main, runtimeClassName="runc-new", hostUsers=False, volumes=scratch))
    inside, outside, length = plane.kubectl("exec", "shifted", "--", "cat", "/proc/self/uid_map").split()
    assert (inside, int(length) >= 65536, int(outside) >= 65536) == ("0", True, True)
    assert plane.kubectl("exec", "shifted", "--", "stat", "-c", "%u", "/scratch/file").strip() == "0"
    pid = pid_of(cluster.daemon, cluster.container("shifted", "main")["containerID"])
    assert Path(f"/proc/{pid}").stat().st_uid == int(outside)
