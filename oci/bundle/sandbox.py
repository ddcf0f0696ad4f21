"""The config.json of a pod's first process, for pods that need one (a shared PID namespace, a sandbox).

It holds the pod's PID namespace and reaps; it has no capability, no device, no writable file, and its root
file system is nothing but its own binary.
"""

from __future__ import annotations

from typing import Any

from oci.bundle.annotations import init_annotations
from oci.bundle.build import OCI_VERSION
from oci.bundle.inputs import DEFAULT_PATH, Built, SandboxInitInputs
from oci.bundle.mounts import default_mounts, ordered, pod_mounts
from oci.bundle.namespaces import id_mappings, init_namespaces
from oci.bundle.process import oom_score_adj
from oci.bundle.security import DEFAULT_MASKED_PATHS, DEFAULT_READONLY_PATHS
from oci.selinux import file_label
from oci.workload import NamespaceMode, SelinuxOption

_OOM_SCORE_ADJ = -998  # what the field gives a pod's first process: it must outlive its containers
_CPU_SHARES = 2  # the least: it only waits


def sandbox_init(inputs: SandboxInitInputs) -> Built:
    """The configuration of the first process; its PID namespace is new unless the pod lives in the host's.

    Raises WrongState where a namespace of the pod is not pinned, BadInput as the fragments do.
    """
    security = inputs.pod.security
    namespaces = security.namespaces
    score, notes = oom_score_adj(_OOM_SCORE_ADJ, inputs.host)
    none: list[str] = []
    process: dict[str, Any] = {
        "terminal": False,
        "user": {"uid": 0, "gid": 0},
        "args": list(inputs.args),
        "env": [f"PATH={DEFAULT_PATH}"],
        "cwd": "/",
        "capabilities": {
            name: list(none) for name in ("bounding", "effective", "permitted", "inheritable", "ambient")
        },
        "noNewPrivileges": True,
        "oomScoreAdj": score,
    }
    # proc and dev are all that waiting and reaping needs; each mount less is a faster start.
    mounts = [m for m in default_mounts(privileged=False) if m["destination"] in ("/proc", "/dev")]
    linux: dict[str, Any] = {
        "cgroupsPath": inputs.cgroup.config_path,
        "namespaces": init_namespaces(inputs),
        **id_mappings(namespaces.user),
        "resources": {"devices": [{"allow": False, "access": "rwm"}], "cpu": {"shares": _CPU_SHARES}},
        "maskedPaths": list(DEFAULT_MASKED_PATHS),
        "readonlyPaths": list(DEFAULT_READONLY_PATHS),
    }
    if inputs.host.selinux and inputs.handler.selinux and inputs.selinux_level:
        asked = security.selinux or SelinuxOption()
        parts = (asked.user or "system_u", asked.role or "system_r", asked.type or "container_t")
        process["selinuxLabel"] = ":".join((*parts, inputs.selinux_level))
        linux["mountLabel"] = file_label(inputs.selinux_level)
    if inputs.sysctls:
        linux["sysctl"] = dict(inputs.sysctls)
    config: dict[str, Any] = {
        "ociVersion": OCI_VERSION,
        "process": process,
        "root": {"path": inputs.rootfs, "readonly": True},
        "mounts": ordered([*mounts, *pod_mounts(inputs.files, readonly=True)]),
        "annotations": init_annotations(inputs),
        "linux": linux,
    }
    if namespaces.network is not NamespaceMode.NODE and inputs.pod.hostname:
        config["hostname"] = inputs.pod.hostname
    return Built(config=config, notes=tuple(notes))
