"""A daemon of values: what the command asks is noted, what it is told is set by the test."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from api.client import Client
from api.proto import admin_pb2, cri_pb2
from cli.main import main
from oci.errors import Busy, CrispError

ADMIN = Path("/fake/admin.sock")


@dataclass(slots=True)
class Service:
    """Answers on all sockets. `answers` are by the name of the RPC: a message, an error, or a function."""

    answers: dict[str, Any] = field(default_factory=dict)
    objects: admin_pb2.ObjectsResponse = field(default_factory=admin_pb2.ObjectsResponse)
    state_directory: str = "/fake/state"
    calls: list[tuple[str, str, Any]] = field(default_factory=list)  # socket's name, RPC, request
    events: queue.SimpleQueue[admin_pb2.Event | None] = field(default_factory=queue.SimpleQueue)

    def connect(self, path: Path) -> Client:
        return cast(Client, _Client(self, path))

    def run(self, *arguments: str) -> int:
        """The command, on this daemon; returns its exit status."""
        return main(["--socket", str(ADMIN), *arguments], connector=self.connect)

    def requests(self, rpc: str) -> list[Any]:
        return [request for _, name, request in self.calls if name == rpc]

    def changing(self) -> list[str]:
        """The calls that change something, with their sockets: "run.sock StopContainer"."""
        reading = (
            "Daemon",
            "Objects",
            "Events",
            "Status",
            "ImageStatus",
            "ContainerStatus",
            "ListImages",
            "Pulls",
        )
        return [f"{socket} {rpc}" for socket, rpc, _ in self.calls if rpc not in reading]

    def answer(self, rpc: str, request: Any) -> Any:
        if rpc in self.answers:
            found = self.answers[rpc]
            if isinstance(found, CrispError):
                raise found
            return found(request) if callable(found) else found
        match rpc:
            case "Daemon":
                return self._daemon()
            case "Objects":
                return self._objects(request.realm)
            case "Events":
                return self._events()
        module = admin_pb2 if hasattr(admin_pb2, f"{rpc}Response") else cri_pb2
        return getattr(module, f"{rpc}Response")()

    def _daemon(self) -> admin_pb2.DaemonResponse:
        return admin_pb2.DaemonResponse(
            version="1.2.3",
            pid=42,
            started_at=10**18,
            ready_at=10**18 + 120_000_000,
            state_directory=self.state_directory,
            run_directory="/fake",
            realms=[
                admin_pb2.Realm(name="kubelet", sockets=["/fake/crisp.sock"]),
                admin_pb2.Realm(name="run", sockets=["/fake/run.sock"]),
            ],
            resident_bytes=50 * 2**20,
        )

    def _objects(self, realm: str) -> admin_pb2.ObjectsResponse:
        return admin_pb2.ObjectsResponse(
            pods=[pod for pod in self.objects.pods if realm in ("", pod.realm)],
            containers=[one for one in self.objects.containers if realm in ("", one.realm)],
        )

    def _events(self) -> Iterator[admin_pb2.Event]:
        while (event := self.events.get(timeout=20)) is not None:
            yield event


class _Client:
    def __init__(self, service: Service, path: Path) -> None:
        self.admin = self.runtime = self.image = _Stub(service, path.name)

    def close(self) -> None:
        pass


class _Stub:
    def __init__(self, service: Service, socket: str) -> None:
        self._service = service
        self._socket = socket

    def __getattr__(self, rpc: str) -> Callable[..., Any]:
        def call(request: Any, *, timeout: float | None = None) -> Any:
            self._service.calls.append((self._socket, rpc, request))
            return self._service.answer(rpc, request)

        return call


def not_there(path: Path) -> Client:
    """A connector for a daemon that does not run."""
    raise Busy(f"socket {path} does not exist: crispd is not running")


def pod(id_: str, namespace: str, name: str, **values: Any) -> admin_pb2.Pod:
    given = {"realm": "kubelet", "uid": f"uid-{name}", "state": "ready", "handler": "runc", **values}
    return admin_pb2.Pod(id=id_ * 64, namespace=namespace, name=name, **given)


def container(id_: str, of: admin_pb2.Pod, name: str, **values: Any) -> admin_pb2.Container:
    given = {"state": "running", "handler": "runc", "image": "img", **values}
    return admin_pb2.Container(id=id_ * 64, pod_id=of.id, realm=of.realm, name=name, **given)
