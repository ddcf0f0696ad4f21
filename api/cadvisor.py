"""The few words of CRI-O's HTTP API that kubelet's cAdvisor asks over a unix socket (facts: container/crio).

`GET /info` and `GET /containers/ID`; anything else is 404, as is what does not run yet: cAdvisor asks again.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from api.plain_http import Answer, PlainHttp
from api.sockets import claim, protect
from api.translate import cadvisor as documents
from oci.workload import ContainerId, PodId
from shim.node import Node
from shim.podleaves import PodLeaves
from shim.records import ContainerState


class CadvisorServer:
    """Listens from `start` to `stop`; kubelet has a connection or two."""

    def __init__(self, node: Node, leaves: PodLeaves, path: Path, *, systemd_cgroups: bool) -> None:
        self._node = node
        self._leaves = leaves
        self._path = path
        self._systemd = systemd_cgroups
        self._http = PlainHttp(self.answer)
        self._claimed = False

    async def start(self) -> None:
        """Bind the socket. Raises Busy when somebody (CRI-O, most likely) answers there."""
        await asyncio.to_thread(claim, self._path)
        self._claimed = True
        await self._http.start_unix(self._path)
        await asyncio.to_thread(protect, self._path)

    async def stop(self) -> None:
        await self._http.stop()
        if self._claimed:
            await asyncio.to_thread(self._path.unlink, missing_ok=True)
        self._claimed = False

    def answer(self, method: str, target: str) -> Answer:
        """JSON for one request."""
        document: dict[str, Any] | None = None
        if method == "GET" and target == "/info":
            root = str(self._node.paths.state_dir)
            document = documents.info(systemd_cgroups=self._systemd, storage_root=root)
        elif method == "GET" and target.startswith("/containers/"):
            document = self._described(target.removeprefix("/containers/"))
        if document is None:
            return Answer(status=404, body=b'{"error": "not known, or does not run"}\n')
        return Answer(status=200, body=json.dumps(document).encode())

    def _described(self, id_: str) -> dict[str, Any] | None:
        store, paths = self._node.store, self._node.paths
        record = store.containers.get(ContainerId(id_))
        if record is not None:
            pod = store.pods.get(record.pod_id)
            if pod is None or record.process is None or record.state is not ContainerState.RUNNING:
                return None
            image = record.spec.image.user_specified_image or record.spec.image.image
            return documents.container(record, pod, image=image, root=str(paths.container(record.id)))
        pod = store.pods.get(PodId(id_))
        pid = self._leaves.pid(PodId(id_))
        return documents.sandbox(pod, pid=pid) if pod is not None and pid else None
