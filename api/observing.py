"""The calls of RuntimeService that only look, again and again: lists, usage, events.

kubelet polls them for as long as the node lives, so none of them touches what a lifecycle call waits for.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from api.batches import batches
from api.changes import Records, Watch
from api.listing import Listing
from api.ports import Containers, Images, Pods
from api.proto import cri_pb2
from api.translate import containers, events, filters, metrics, pods, usage
from oci.metrics import Family
from shim.records import ContainerRecord, PodRecord


class Observing:
    """Sees only the objects of `realm`; `records` is the store, `families` are the machine's metrics."""

    def __init__(
        self,
        *,
        realm: str,
        pods: Pods,
        containers: Containers,
        images: Images,
        records: Records,
        families: Sequence[Family],
    ) -> None:
        self._realm = realm
        self._pods = pods
        self._containers = containers
        self._images = images
        self._records = records
        self._families = families
        # The answers to both ways of asking have the same wire form: one repeated field of the same number.
        self._pod_list = Listing(records, PodRecord, _list_of_pod)
        self._container_list = Listing(records, ContainerRecord, _list_of_container)

    # Lists: serialized already

    async def list_pod_sandbox(self, request: cri_pb2.ListPodSandboxRequest) -> bytes:
        return self._pod_list.message(filters.pods(self._pods.all(self._realm), request.filter))

    async def stream_pod_sandboxes(
        self, request: cri_pb2.StreamPodSandboxesRequest
    ) -> AsyncGenerator[bytes, None]:
        found = filters.pods(self._pods.all(self._realm), request.filter)
        for batch in batches(self._pod_list.pieces(found), b"".join):
            yield batch

    async def list_containers(self, request: cri_pb2.ListContainersRequest) -> bytes:
        found = filters.containers(self._containers.all(self._realm), request.filter)
        return self._container_list.message(found)

    async def stream_containers(
        self, request: cri_pb2.StreamContainersRequest
    ) -> AsyncGenerator[bytes, None]:
        found = filters.containers(self._containers.all(self._realm), request.filter)
        for batch in batches(self._container_list.pieces(found), b"".join):
            yield batch

    # Usage

    async def container_stats(self, request: cri_pb2.ContainerStatsRequest) -> cri_pb2.ContainerStatsResponse:
        record = self._containers.get(self._realm, request.container_id)
        read = await self._containers.stats(self._realm, record.id)
        return cri_pb2.ContainerStatsResponse(stats=usage.container_stats(record, read))

    async def list_container_stats(
        self, request: cri_pb2.ListContainerStatsRequest
    ) -> cri_pb2.ListContainerStatsResponse:
        return cri_pb2.ListContainerStatsResponse(stats=await self._container_stats(request.filter))

    async def stream_container_stats(
        self, request: cri_pb2.StreamContainerStatsRequest
    ) -> AsyncGenerator[cri_pb2.StreamContainerStatsResponse, None]:
        for batch in batches(
            await self._container_stats(request.filter),
            lambda items: cri_pb2.StreamContainerStatsResponse(container_stats=items),
        ):
            yield batch

    async def _container_stats(self, wanted: cri_pb2.ContainerStatsFilter) -> list[cri_pb2.ContainerStats]:
        found = {record.id: record for record in filters.running(self._containers.all(self._realm), wanted)}
        read = await self._containers.all_stats(self._realm, list(found))
        return [usage.container_stats(found[one.id], one) for one in read]

    async def pod_sandbox_stats(
        self, request: cri_pb2.PodSandboxStatsRequest
    ) -> cri_pb2.PodSandboxStatsResponse:
        record = self._pods.get(self._realm, request.pod_sandbox_id)
        read = await self._pods.stats(self._realm, record.id)
        return cri_pb2.PodSandboxStatsResponse(stats=usage.pod_stats(record, read, self._records.containers))

    async def list_pod_sandbox_stats(
        self, request: cri_pb2.ListPodSandboxStatsRequest
    ) -> cri_pb2.ListPodSandboxStatsResponse:
        return cri_pb2.ListPodSandboxStatsResponse(stats=await self._pod_stats(request.filter))

    async def stream_pod_sandbox_stats(
        self, request: cri_pb2.StreamPodSandboxStatsRequest
    ) -> AsyncGenerator[cri_pb2.StreamPodSandboxStatsResponse, None]:
        for batch in batches(
            await self._pod_stats(request.filter),
            lambda items: cri_pb2.StreamPodSandboxStatsResponse(pod_sandbox_stats=items),
        ):
            yield batch

    async def _pod_stats(self, wanted: cri_pb2.PodSandboxStatsFilter) -> list[cri_pb2.PodSandboxStats]:
        found = {record.id: record for record in filters.ready(self._pods.all(self._realm), wanted)}
        read = await self._pods.all_stats(self._realm, list(found))
        return [usage.pod_stats(found[one.id], one, self._records.containers) for one in read]

    # Metrics

    async def list_metric_descriptors(
        self, _request: cri_pb2.ListMetricDescriptorsRequest
    ) -> cri_pb2.ListMetricDescriptorsResponse:
        return cri_pb2.ListMetricDescriptorsResponse(descriptors=map(metrics.descriptor, self._families))

    async def list_pod_sandbox_metrics(
        self, _request: cri_pb2.ListPodSandboxMetricsRequest
    ) -> cri_pb2.ListPodSandboxMetricsResponse:
        return cri_pb2.ListPodSandboxMetricsResponse(pod_metrics=await self._metrics())

    async def stream_pod_sandbox_metrics(
        self, _request: cri_pb2.StreamPodSandboxMetricsRequest
    ) -> AsyncGenerator[cri_pb2.StreamPodSandboxMetricsResponse, None]:
        for batch in batches(
            await self._metrics(),
            lambda items: cri_pb2.StreamPodSandboxMetricsResponse(pod_sandbox_metrics=items),
        ):
            yield batch

    async def _metrics(self) -> list[cri_pb2.PodSandboxMetrics]:
        kinds = {family.name: family.kind for family in self._families}
        read = await self._pods.metrics(self._realm)
        return [
            metrics.pod_metrics(self._records.pods[one.id], one, self._records.containers, kinds)
            for one in read
            if one.id in self._records.pods
        ]

    # Events

    def get_container_events(
        self, _request: cri_pb2.GetEventsRequest
    ) -> Watch[events.Event, cri_pb2.ContainerEventResponse]:
        # Subscribed here, not at the first read: what happens once the call has begun must not be missed.
        return Watch(
            self._records,
            see=events.Events(self._records, self._realm).of,
            show=lambda event: events.to_wire(event, self._images.find),
        )


def _list_of_pod(record: PodRecord) -> cri_pb2.ListPodSandboxResponse:
    return cri_pb2.ListPodSandboxResponse(items=[pods.listed(record)])


def _list_of_container(record: ContainerRecord) -> cri_pb2.ListContainersResponse:
    return cri_pb2.ListContainersResponse(containers=[containers.listed(record)])
