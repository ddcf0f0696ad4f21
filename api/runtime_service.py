"""RuntimeService of CRI for one realm: each method translates, calls one verb, and responds.

The calls that only look, again and again, are `api/observing.py`'s, those that answer with a URL
`api/connecting.py`'s.

Error codes, logging and shielding are not its business (`api/door.py`, `shim/lifecycle/`). What is missing
here stands in `api/unbuilt.py`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from api.changes import Records
from api.connecting import Connecting
from api.observing import Observing
from api.ports import Containers, Images, Node, Pods
from api.proto import cri_pb2
from api.streaming.server import StreamingServer
from api.translate import checks, containers, node, pods, resources
from api.translate.container_request import arguments, container_spec
from api.translate.pod_request import pod_spec
from oci.errors import BadInput
from oci.metrics import Family

EXEC_OUTPUT_LIMIT = 16 * 1024 * 1024 - 64 * 1024
"""Bytes of both streams in one ExecSync answer: a client takes messages of 16 MiB."""


class RuntimeService(Connecting, Observing):
    """Sees and touches only the objects of `realm`."""

    def __init__(
        self,
        *,
        realm: str,
        pods: Pods,
        containers: Containers,
        images: Images,
        node: Node,
        records: Records,
        streams: StreamingServer,
        families: Sequence[Family],
    ) -> None:
        super().__init__(
            realm=realm, pods=pods, containers=containers, images=images, records=records, families=families
        )
        self._node = node
        self._streams = streams

    # The runtime itself

    async def version(self, _request: cri_pb2.VersionRequest) -> cri_pb2.VersionResponse:
        return node.version(self._node.version)

    async def status(self, request: cri_pb2.StatusRequest) -> cri_pb2.StatusResponse:
        details = await self._node.describe() if request.verbose else {}
        return node.status(await self._node.status(), details)

    async def runtime_config(self, _request: cri_pb2.RuntimeConfigRequest) -> cri_pb2.RuntimeConfigResponse:
        return node.runtime_config(systemd_cgroups=self._node.systemd_cgroups)

    async def update_runtime_config(
        self, _request: cri_pb2.UpdateRuntimeConfigRequest
    ) -> cri_pb2.UpdateRuntimeConfigResponse:
        # The pod address range is the CNI configuration's to know; kubelet only needs to have told it.
        return cri_pb2.UpdateRuntimeConfigResponse()

    # Pod sandboxes

    async def run_pod_sandbox(self, request: cri_pb2.RunPodSandboxRequest) -> cri_pb2.RunPodSandboxResponse:
        _require(request.HasField("config"), "config: missing")
        spec = pod_spec(request.config, "config", handler=request.runtime_handler)
        record = await self._pods.run(spec, realm=self._realm)
        return cri_pb2.RunPodSandboxResponse(pod_sandbox_id=record.id)

    async def stop_pod_sandbox(
        self, request: cri_pb2.StopPodSandboxRequest
    ) -> cri_pb2.StopPodSandboxResponse:
        await self._pods.stop(self._realm, request.pod_sandbox_id)
        return cri_pb2.StopPodSandboxResponse()

    async def remove_pod_sandbox(
        self, request: cri_pb2.RemovePodSandboxRequest
    ) -> cri_pb2.RemovePodSandboxResponse:
        await self._pods.remove(self._realm, request.pod_sandbox_id)
        return cri_pb2.RemovePodSandboxResponse()

    async def pod_sandbox_status(
        self, request: cri_pb2.PodSandboxStatusRequest
    ) -> cri_pb2.PodSandboxStatusResponse:
        record = self._pods.get(self._realm, request.pod_sandbox_id)
        info = {"info": json.dumps(await self._pods.describe(record))} if request.verbose else {}
        # The members and the time belong to the events, which are always served.
        members = self._records.containers_of(record.id)
        return cri_pb2.PodSandboxStatusResponse(
            status=pods.status(record),
            info=info,
            containers_statuses=[
                containers.status(member, self._images.find) for member in members if member.created_at > 0
            ],
            timestamp=time.time_ns(),
        )

    async def update_pod_sandbox_resources(
        self, request: cri_pb2.UpdatePodSandboxResourcesRequest
    ) -> cri_pb2.UpdatePodSandboxResourcesResponse:
        overhead = resources.from_wire(request.overhead, "overhead") if request.HasField("overhead") else None
        limits = (
            resources.from_wire(request.resources, "resources") if request.HasField("resources") else None
        )
        await self._pods.update(self._realm, request.pod_sandbox_id, overhead=overhead, resources=limits)
        return cri_pb2.UpdatePodSandboxResourcesResponse()

    # Containers

    async def create_container(
        self, request: cri_pb2.CreateContainerRequest
    ) -> cri_pb2.CreateContainerResponse:
        _require(request.HasField("config"), "config: missing")
        _require(request.HasField("sandbox_config"), "sandbox_config: missing")
        spec = container_spec(request.config, "config")
        of_pod = pod_spec(request.sandbox_config, "sandbox_config")
        record = await self._containers.create(self._realm, request.pod_sandbox_id, spec, of_pod)
        return cri_pb2.CreateContainerResponse(container_id=record.id)

    async def start_container(self, request: cri_pb2.StartContainerRequest) -> cri_pb2.StartContainerResponse:
        await self._containers.start(self._realm, request.container_id)
        return cri_pb2.StartContainerResponse()

    async def stop_container(self, request: cri_pb2.StopContainerRequest) -> cri_pb2.StopContainerResponse:
        await self._containers.stop(self._realm, request.container_id, float(max(request.timeout, 0)))
        return cri_pb2.StopContainerResponse()

    async def remove_container(
        self, request: cri_pb2.RemoveContainerRequest
    ) -> cri_pb2.RemoveContainerResponse:
        await self._containers.remove(self._realm, request.container_id)
        return cri_pb2.RemoveContainerResponse()

    async def container_status(
        self, request: cri_pb2.ContainerStatusRequest
    ) -> cri_pb2.ContainerStatusResponse:
        record = self._containers.get(self._realm, request.container_id)
        info = {"info": json.dumps(await self._containers.describe(record))} if request.verbose else {}
        return cri_pb2.ContainerStatusResponse(status=containers.status(record, self._images.find), info=info)

    async def update_container_resources(
        self, request: cri_pb2.UpdateContainerResourcesRequest
    ) -> cri_pb2.UpdateContainerResourcesResponse:
        checks.mapping(request.annotations, "annotations")
        change = resources.from_wire(request.linux, "linux")
        await self._containers.update(self._realm, request.container_id, change)
        return cri_pb2.UpdateContainerResourcesResponse()

    async def checkpoint_container(
        self, request: cri_pb2.CheckpointContainerRequest
    ) -> cri_pb2.CheckpointContainerResponse:
        location = Path(checks.absolute(request.location, "location"))
        limit = float(request.timeout) if request.timeout > 0 else None
        await self._containers.checkpoint(self._realm, request.container_id, location, limit)
        return cri_pb2.CheckpointContainerResponse()

    async def reopen_container_log(
        self, request: cri_pb2.ReopenContainerLogRequest
    ) -> cri_pb2.ReopenContainerLogResponse:
        await self._containers.reopen_log(self._realm, request.container_id)
        return cri_pb2.ReopenContainerLogResponse()

    # Processes

    async def exec_sync(self, request: cri_pb2.ExecSyncRequest) -> cri_pb2.ExecSyncResponse:
        _require(len(request.cmd) > 0, "cmd: empty")
        command = arguments(request.cmd, "cmd")
        limit = float(request.timeout) if request.timeout > 0 else None
        result = await self._containers.exec_sync(self._realm, request.container_id, command, limit)
        stdout, stderr = fit(result.stdout, result.stderr)
        return cri_pb2.ExecSyncResponse(stdout=stdout, stderr=stderr, exit_code=result.exit_code)


def fit(stdout: bytes, stderr: bytes, *, limit: int = EXEC_OUTPUT_LIMIT) -> tuple[bytes, bytes]:
    """Both streams cut so that they fit into one answer; a short one leaves its room to the other."""
    half = limit // 2
    for_stdout = max(half, limit - len(stderr))
    for_stderr = max(half, limit - len(stdout))
    return stdout[:for_stdout], stderr[:for_stderr]


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise BadInput(otherwise)
