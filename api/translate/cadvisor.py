"""What kubelet's embedded cAdvisor asks of CRI-O, told of Crisp's pods and containers.

The members are those that cAdvisor 0.60 reads (container/crio/client.go, handler.go). Pure.
"""

from __future__ import annotations

from typing import Any

from shim.records import ContainerRecord, PodRecord

SANDBOX = "POD"
"""The container name by which cAdvisor knows whose network is the pod's."""

_CONTAINER_NAME = "io.kubernetes.container.name"


def info(*, systemd_cgroups: bool, storage_root: str) -> dict[str, Any]:
    """`GET /info`."""
    return {
        "storage_driver": "overlay",
        "storage_root": storage_root,
        "storage_image": "",
        "cgroup_driver": "systemd" if systemd_cgroups else "cgroupfs",
    }


def container(record: ContainerRecord, pod: PodRecord, *, image: str, root: str) -> dict[str, Any]:
    """`GET /containers/ID` of a container whose process runs; `root` is where its own files are kept."""
    of, meta = pod.spec.metadata, record.spec.metadata
    return {
        "name": f"k8s_{meta.name}_{of.name}_{of.namespace}_{of.uid}_{meta.attempt}",
        "pid": record.process.pid if record.process is not None else 0,
        "image": image,
        "created_time": record.created_at,
        "labels": dict(record.spec.labels),
        "annotations": dict(record.spec.annotations),
        "log_path": record.log_path,
        "root": root,
        "ip_address": _addresses(pod)[0] if _addresses(pod) else "",
        "ip_addresses": _addresses(pod),
    }


def sandbox(pod: PodRecord, *, pid: int) -> dict[str, Any]:
    """`GET /containers/ID` of a pod; `pid` is a process in its network namespace."""
    of = pod.spec.metadata
    return {
        "name": f"k8s_{SANDBOX}_{of.name}_{of.namespace}_{of.uid}_{of.attempt}",
        "pid": pid,
        "image": "",
        "created_time": pod.created_at,
        "labels": {**pod.spec.labels, _CONTAINER_NAME: SANDBOX},
        "annotations": dict(pod.spec.annotations),
        "log_path": "",
        "root": "",
        "ip_address": _addresses(pod)[0] if _addresses(pod) else "",
        "ip_addresses": _addresses(pod),
    }


def _addresses(pod: PodRecord) -> list[str]:
    return list(pod.network.addresses) if pod.network is not None else []
