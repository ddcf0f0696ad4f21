"""ContainerUsage -> ContainerStats, PodUsage -> PodSandboxStats.

What could not be read stays absent: a zero would be a claim.
"""

from __future__ import annotations

from collections.abc import Mapping

from api.proto import cri_pb2
from api.translate.containers import metadata
from api.translate.images import filesystem
from api.translate.pods import metadata as pod_metadata
from oci.netdev import InterfaceCounters
from oci.workload import ContainerId
from shim.records import ContainerRecord, PodRecord
from shim.stats import (
    ContainerUsage,
    CpuUse,
    IoUse,
    MemoryUse,
    NetworkUse,
    PodUsage,
    Pressure,
    PressureLine,
    ProcessUse,
    SwapUse,
)


def container_stats(record: ContainerRecord, usage: ContainerUsage) -> cri_pb2.ContainerStats:
    return cri_pb2.ContainerStats(
        attributes=cri_pb2.ContainerAttributes(
            id=record.id,
            metadata=metadata(record.spec.metadata),
            labels=record.spec.labels,
            annotations=record.spec.annotations,
        ),
        cpu=_cpu(usage.cpu) if usage.cpu else None,
        memory=_memory(usage.memory) if usage.memory else None,
        writable_layer=filesystem(usage.writable_layer) if usage.writable_layer else None,
        swap=_swap(usage.swap) if usage.swap else None,
        io=_io(usage.io) if usage.io else None,
    )


def pod_stats(
    record: PodRecord, usage: PodUsage, members: Mapping[ContainerId, ContainerRecord]
) -> cri_pb2.PodSandboxStats:
    """`members` has the records of the pod's containers."""
    return cri_pb2.PodSandboxStats(
        attributes=cri_pb2.PodSandboxAttributes(
            id=record.id,
            metadata=pod_metadata(record.spec.metadata),
            labels=record.spec.labels,
            annotations=record.spec.annotations,
        ),
        linux=cri_pb2.LinuxPodSandboxStats(
            cpu=_cpu(usage.cpu) if usage.cpu else None,
            memory=_memory(usage.memory) if usage.memory else None,
            network=_network(usage.network) if usage.network else None,
            process=_process(usage.process) if usage.process else None,
            containers=[
                container_stats(members[one.id], one) for one in usage.containers if one.id in members
            ],
            io=_io(usage.io) if usage.io else None,
        ),
    )


def _network(use: NetworkUse) -> cri_pb2.NetworkUsage:
    return cri_pb2.NetworkUsage(
        timestamp=use.timestamp,
        default_interface=_interface(use.default) if use.default else None,
        interfaces=map(_interface, use.others),
    )


def _interface(counters: InterfaceCounters) -> cri_pb2.NetworkInterfaceUsage:
    return cri_pb2.NetworkInterfaceUsage(
        name=counters.name,
        rx_bytes=_maybe(counters.rx_bytes),
        rx_errors=_maybe(counters.rx_errors),
        tx_bytes=_maybe(counters.tx_bytes),
        tx_errors=_maybe(counters.tx_errors),
    )


def _process(use: ProcessUse) -> cri_pb2.ProcessUsage:
    return cri_pb2.ProcessUsage(timestamp=use.timestamp, process_count=_maybe(use.count))


def _cpu(use: CpuUse) -> cri_pb2.CpuUsage:
    return cri_pb2.CpuUsage(
        timestamp=use.timestamp,
        usage_core_nano_seconds=_maybe(use.usage_core_nano_seconds),
        usage_nano_cores=_maybe(use.usage_nano_cores),
        psi=_psi(use.pressure),
    )


def _memory(use: MemoryUse) -> cri_pb2.MemoryUsage:
    return cri_pb2.MemoryUsage(
        timestamp=use.timestamp,
        working_set_bytes=_maybe(use.working_set),
        available_bytes=_maybe(use.available),
        usage_bytes=_maybe(use.usage),
        rss_bytes=_maybe(use.rss),
        page_faults=_maybe(use.page_faults),
        major_page_faults=_maybe(use.major_page_faults),
        psi=_psi(use.pressure),
    )


def _swap(use: SwapUse) -> cri_pb2.SwapUsage:
    return cri_pb2.SwapUsage(
        timestamp=use.timestamp,
        swap_available_bytes=_maybe(use.available),
        swap_usage_bytes=_maybe(use.usage),
    )


def _io(use: IoUse) -> cri_pb2.IoUsage:
    return cri_pb2.IoUsage(timestamp=use.timestamp, psi=_psi(use.pressure))


def _maybe(value: int | None) -> cri_pb2.UInt64Value | None:
    return None if value is None else cri_pb2.UInt64Value(value=max(value, 0))


def _psi(pressure: Pressure | None) -> cri_pb2.PsiStats | None:
    if pressure is None:
        return None
    return cri_pb2.PsiStats(Full=_psi_line(pressure.full), Some=_psi_line(pressure.some))


def _psi_line(line: PressureLine) -> cri_pb2.PsiData:
    return cri_pb2.PsiData(Total=line.total, Avg10=line.avg10, Avg60=line.avg60, Avg300=line.avg300)
