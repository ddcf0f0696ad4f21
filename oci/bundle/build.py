"""A container's config.json, joined from its parts (OCI runtime-spec 1.0.2, config.md).

Pure: everything that had to be looked up is in the inputs. Equal inputs give equal configurations.
"""

from __future__ import annotations

from typing import Any

from oci.bundle.annotations import container_annotations
from oci.bundle.capabilities import resolve
from oci.bundle.devices import devices
from oci.bundle.hooks import hooks
from oci.bundle.inputs import Built, BundleInputs
from oci.bundle.mounts import mounts, rootfs_propagation
from oci.bundle.namespaces import check_identity, id_mappings, namespaces
from oci.bundle.process import process
from oci.bundle.resources import at_creation, resources
from oci.bundle.security import apparmor_profile, hidden_paths, seccomp_filter, selinux_labels
from oci.cdi import Hook
from oci.errors import BadInput
from oci.workload import Resources

OCI_VERSION = "1.0.2"
"""The oldest supported runtimes (crun before 1.14.2) refuse any version that is not 1.0."""


def build(inputs: BundleInputs) -> Built:
    """The configuration of one container.

    Raises BadInput with the field's path for a request that cannot be, Unsupported for what this kernel or
    handler lacks, WrongState where the pod's namespaces are not there.
    """
    container, asked = inputs.container, inputs.container.security
    if asked.privileged and not inputs.pod.security.privileged:
        raise BadInput("config.linux.security_context.privileged: the pod is not privileged")
    user_namespace = inputs.pod.security.namespaces.user
    check_identity(inputs.user, user_namespace)
    given = resolve(
        asked.capabilities,
        privileged=asked.privileged,
        defaults=inputs.defaults.capabilities,
        available=inputs.host.bounding if user_namespace else inputs.host.capabilities,
        inheritable=inputs.defaults.inheritable_capabilities,
    )
    notes = [f"{name} left out: the daemon does not have it" for name in given.missing]

    process_object, process_notes = process(inputs, capabilities=given.to_oci())
    process_label, mount_label, label_notes = selinux_labels(inputs)
    if process_label:
        process_object["selinuxLabel"] = process_label
    if profile := apparmor_profile(inputs):
        process_object["apparmorProfile"] = profile

    nodes, rules = devices(inputs)
    _check_memory(container.resources, inputs.defaults.min_memory)
    limits, limit_notes = resources(container.resources, inputs.host, pids_limit=inputs.defaults.pids_limit)
    limits = at_creation(limits)
    linux: dict[str, Any] = {
        "cgroupsPath": inputs.cgroup.config_path,
        "namespaces": namespaces(inputs),
        **id_mappings(user_namespace),
        "resources": {"devices": rules, **limits},
        "devices": nodes,
        **hidden_paths(inputs),
    }
    if wanted := rootfs_propagation(inputs.mounts):
        linux["rootfsPropagation"] = wanted
    if mount_label:
        linux["mountLabel"] = mount_label
    if (table := seccomp_filter(inputs, frozenset(given.bounding))) is not None:
        linux["seccomp"] = dict(table)

    config: dict[str, Any] = {
        "ociVersion": OCI_VERSION,
        "process": process_object,
        "root": {"path": inputs.rootfs, "readonly": asked.readonly_rootfs},
        "mounts": mounts(inputs),
        "annotations": container_annotations(inputs),
        "linux": linux,
    }
    if wanted_hooks := hooks((*_node_hooks(inputs, process_object["args"][0]), *inputs.edits.hooks)):
        config["hooks"] = wanted_hooks
    config = inputs.handler.base.under(config)
    return Built(config=config, notes=tuple(notes + process_notes + label_notes + limit_notes))


def _node_hooks(inputs: BundleInputs, command: str) -> list[Hook]:
    annotations = {**inputs.pod.annotations, **inputs.container.annotations}
    return [
        hook
        for file in inputs.hooks
        if file.applies(command=command, annotations=annotations, bind_mounts=bool(inputs.mounts))
        for hook in file.hooks
    ]


def _check_memory(asked: Resources, least: int) -> None:
    if 0 < asked.memory_limit < least:
        raise BadInput(
            f"config.linux.resources.memory_limit_in_bytes: {asked.memory_limit} is under the {least} that"
            " containers need here (containers.min_memory)"
        )
