"""Pods and containers as the command shows them: plain values, their names, and their form in JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from cli.form import rfc3339

if TYPE_CHECKING:
    from api.proto import admin_pb2


class Realms(StrEnum):
    """Sets of pods that do not see each other."""

    KUBELET = "kubelet"
    RUN = "run"


KUBELET = Realms.KUBELET.value
RUN = Realms.RUN.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    id: str
    realm: str
    namespace: str
    name: str
    uid: str = ""
    attempt: int = 0
    state: str = "ready"
    created_at: int = 0  # ns since the Unix epoch, as all times here; 0 is unset
    handler: str = ""
    addresses: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    fault: str = ""

    @property
    def path(self) -> str:
        return f"{self.namespace}/{self.name}"

    def plain(self) -> dict[str, Any]:
        """For `-o json`."""
        return {
            "id": self.id,
            "realm": self.realm,
            "namespace": self.namespace,
            "name": self.name,
            "uid": self.uid,
            "attempt": self.attempt,
            "state": self.state,
            "created_at": rfc3339(self.created_at),
            "handler": self.handler,
            "addresses": list(self.addresses),
            "labels": dict(self.labels),
            "annotations": dict(self.annotations),
            "fault": self.fault,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    id: str
    pod_id: str
    realm: str
    name: str
    attempt: int = 0
    state: str = "running"
    created_at: int = 0
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    image: str = ""
    image_id: str = ""
    handler: str = ""
    pid: int = 0
    log_path: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    fault: str = ""

    @property
    def ended(self) -> bool:
        return self.state in ("exited", "removing")

    def plain(self, pod: Pod | None) -> dict[str, Any]:
        """For `-o json`."""
        return {
            "id": self.id,
            "realm": self.realm,
            "namespace": pod.namespace if pod else None,
            "pod": pod.name if pod else None,
            "pod_id": self.pod_id,
            "name": self.name,
            "attempt": self.attempt,
            "state": self.state,
            "created_at": rfc3339(self.created_at),
            "started_at": rfc3339(self.started_at),
            "finished_at": rfc3339(self.finished_at),
            "exit_code": self.exit_code if self.ended else None,
            "reason": self.reason,
            "message": self.message,
            "image": self.image,
            "image_id": self.image_id,
            "handler": self.handler,
            "pid": self.pid or None,
            "log_path": self.log_path or None,
            "labels": dict(self.labels),
            "annotations": dict(self.annotations),
            "fault": self.fault,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """All pods and containers at one moment."""

    pods: Mapping[str, Pod]  # by id
    containers: Mapping[str, Container]  # by id

    def pod_of(self, container: Container) -> Pod | None:
        return self.pods.get(container.pod_id)

    def containers_of(self, pod: Pod) -> tuple[Container, ...]:
        return tuple(one for one in self.containers.values() if one.pod_id == pod.id)

    def name_of(self, container: Container) -> str:
        """NAMESPACE/POD/CONTAINER; the id where the pod is gone."""
        pod = self.pod_of(container)
        return f"{pod.path}/{container.name}" if pod else container.id

    def names(self) -> Iterator[str]:
        """What can be typed for an object, pods first."""
        yield from (pod.path for pod in self.pods.values())
        yield from (self.name_of(container) for container in self.containers.values())


def from_wire(message: admin_pb2.ObjectsResponse) -> Inventory:
    return Inventory(
        pods={pod.id: _pod(pod) for pod in message.pods},
        containers={container.id: _container(container) for container in message.containers},
    )


def _pod(message: admin_pb2.Pod) -> Pod:
    return Pod(
        id=message.id,
        realm=message.realm,
        namespace=message.namespace,
        name=message.name,
        uid=message.uid,
        attempt=message.attempt,
        state=message.state,
        created_at=message.created_at,
        handler=message.handler,
        addresses=tuple(message.addresses),
        labels=dict(message.labels),
        annotations=dict(message.annotations),
        fault=message.fault,
    )


def _container(message: admin_pb2.Container) -> Container:
    return Container(
        id=message.id,
        pod_id=message.pod_id,
        realm=message.realm,
        name=message.name,
        attempt=message.attempt,
        state=message.state,
        created_at=message.created_at,
        started_at=message.started_at,
        finished_at=message.finished_at,
        exit_code=message.exit_code,
        reason=message.reason,
        message=message.message,
        image=message.image,
        image_id=message.image_id,
        handler=message.handler,
        pid=message.pid,
        log_path=message.log_path,
        labels=dict(message.labels),
        annotations=dict(message.annotations),
        fault=message.fault,
    )
