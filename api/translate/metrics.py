"""Samples -> what CRI calls metrics. Every sample has the same labels first, then those of its family."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from api.proto import cri_pb2
from oci.metrics import Family, Kind, Sample, container_samples, network_samples
from oci.workload import ContainerId
from shim.collector import PodMetrics
from shim.records import ContainerRecord, PodRecord

BASE_LABELS = ("container", "id", "image", "namespace", "pod")
"""As cAdvisor names them, so that dashboards find them; of a pod itself container and image are empty."""

_KINDS = {Kind.COUNTER: cri_pb2.COUNTER, Kind.GAUGE: cri_pb2.GAUGE}


def descriptor(family: Family) -> cri_pb2.MetricDescriptor:
    return cri_pb2.MetricDescriptor(
        name=family.name, help=family.help, label_keys=(*BASE_LABELS, *family.labels)
    )


def pod_metrics(
    record: PodRecord,
    read: PodMetrics,
    members: Mapping[ContainerId, ContainerRecord],
    kinds: Mapping[str, Kind],
) -> cri_pb2.PodSandboxMetrics:
    """`members` has the records of the pod's containers, `kinds` what is described; the rest is left out."""
    meta = record.spec.metadata
    network = read.network
    return cri_pb2.PodSandboxMetrics(
        pod_sandbox_id=record.id,
        metrics=[]
        if network is None
        else _metrics(
            network_samples(network.interfaces),
            ("", record.id, "", meta.namespace, meta.name),
            network.timestamp,
            kinds,
        ),
        container_metrics=[
            cri_pb2.ContainerMetrics(
                container_id=id_,
                metrics=_metrics(
                    container_samples(reading),
                    (
                        members[id_].spec.metadata.name,
                        id_,
                        members[id_].spec.image.user_specified_image or members[id_].spec.image.image,
                        meta.namespace,
                        meta.name,
                    ),
                    reading.time,
                    kinds,
                ),
            )
            for id_, reading in read.containers
            if id_ in members
        ],
    )


def _metrics(
    samples: Iterable[Sample], base: tuple[str, ...], timestamp: int, kinds: Mapping[str, Kind]
) -> list[cri_pb2.Metric]:
    return [
        cri_pb2.Metric(
            name=sample.name,
            timestamp=timestamp,
            metric_type=_KINDS[kinds[sample.name]],
            label_values=(*base, *sample.labels),
            value=cri_pb2.UInt64Value(value=max(sample.value, 0)),
        )
        for sample in samples
        if sample.name in kinds
    ]
