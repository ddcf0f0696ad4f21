"""PodRecord -> what CRI says of a pod."""

from __future__ import annotations

from api.proto import cri_pb2
from oci.workload import IdMapping, NamespaceMode, NamespaceOptions, PodMetadata
from shim.records import PodRecord, PodState

_MODES = {
    NamespaceMode.POD: cri_pb2.POD,
    NamespaceMode.CONTAINER: cri_pb2.CONTAINER,
    NamespaceMode.NODE: cri_pb2.NODE,
    NamespaceMode.TARGET: cri_pb2.TARGET,
}


def pod_state(record: PodRecord) -> cri_pb2.PodSandboxState.ValueType:
    """A pod is ready or it is not; kubelet replaces what is not."""
    return cri_pb2.SANDBOX_READY if record.state is PodState.READY else cri_pb2.SANDBOX_NOTREADY


def metadata(value: PodMetadata) -> cri_pb2.PodSandboxMetadata:
    return cri_pb2.PodSandboxMetadata(
        name=value.name, namespace=value.namespace, uid=value.uid, attempt=value.attempt
    )


def listed(record: PodRecord) -> cri_pb2.PodSandbox:
    return cri_pb2.PodSandbox(
        id=record.id,
        metadata=metadata(record.spec.metadata),
        state=pod_state(record),
        created_at=record.created_at,
        labels=record.spec.labels,
        annotations=record.spec.annotations,
        runtime_handler=record.spec.handler,
    )


def status(record: PodRecord) -> cri_pb2.PodSandboxStatus:
    """kubelet replaces a pod whose namespace options differ from its specification: they are echoed."""
    return cri_pb2.PodSandboxStatus(
        id=record.id,
        metadata=metadata(record.spec.metadata),
        state=pod_state(record),
        created_at=record.created_at,
        network=_network(record),
        linux=cri_pb2.LinuxPodSandboxStatus(
            namespaces=cri_pb2.Namespace(options=_namespaces(record.spec.security.namespaces))
        ),
        labels=record.spec.labels,
        annotations=record.spec.annotations,
        runtime_handler=record.spec.handler,
    )


def _network(record: PodRecord) -> cri_pb2.PodSandboxNetworkStatus:
    addresses = record.network.addresses if record.network and record.state is PodState.READY else ()
    primary = addresses[0] if addresses else ""
    return cri_pb2.PodSandboxNetworkStatus(
        ip=primary,
        additional_ips=[cri_pb2.PodIP(ip=address) for address in addresses[1:] if address != primary],
    )


def _namespaces(options: NamespaceOptions) -> cri_pb2.NamespaceOption:
    userns = None
    if options.user is not None:
        userns = cri_pb2.UserNamespace(
            mode=cri_pb2.POD, uids=_mappings(options.user.uids), gids=_mappings(options.user.gids)
        )
    elif options.user_requested:
        userns = cri_pb2.UserNamespace(mode=cri_pb2.NODE)
    return cri_pb2.NamespaceOption(
        network=_MODES[options.network],
        pid=_MODES[options.pid],
        ipc=_MODES[options.ipc],
        target_id=options.target_id,
        userns_options=userns,
    )


def _mappings(mappings: tuple[IdMapping, ...]) -> list[cri_pb2.IDMapping]:
    return [
        cri_pb2.IDMapping(host_id=entry.host_id, container_id=entry.container_id, length=entry.length)
        for entry in mappings
    ]
