"""A request of each method that is served, with as many members as one request can have."""

from __future__ import annotations

import itertools
from typing import Any

from google.protobuf.message_factory import GetMessageClass

from api.proto import cri_pb2
from tests.component.cri.client import Client
from tests.images import catalogue

_numbers = itertools.count()
_NOBODY = "f" * 64  # an id that no object has
_METHODS = {
    method.name: method
    for service in cri_pb2.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
M = 1 << 20


def _remove_pod(client: Client, answer: Any) -> None:
    client.remove_pod(answer.pod_sandbox_id)


def _remove_container(client: Client, answer: Any) -> None:
    client.remove(answer.container_id)


MAKES = {"RunPodSandbox": _remove_pod, "CreateContainer": _remove_container}
"""How what a call has made is taken away again."""


class Requests:
    """Of a pod on the host's network with one running container. What would end them names nobody instead."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.pod = client.run_pod(host_network=True)
        self.container = client.run(self.pod, memory_limit_in_bytes=64 * M)
        self._directory = client.daemon.directory

    def valid(self, method: str) -> Any:
        """A new request of that method."""
        make = getattr(self, f"_{method}", None)
        request: Any = make() if make is not None else GetMessageClass(_METHODS[method].input_type)()
        fields = request.DESCRIPTOR.fields_by_name
        if make is None and "container_id" in fields:
            request.container_id = self.container
        if make is None and "pod_sandbox_id" in fields:
            request.pod_sandbox_id = self.pod
        return request

    def _pod_config(self, name: str) -> cri_pb2.PodSandboxConfig:
        return cri_pb2.PodSandboxConfig(
            metadata=cri_pb2.PodSandboxMetadata(name=name, namespace="default", uid=name, attempt=1),
            hostname="walked",
            log_directory=str(self._directory / "logs" / name),
            dns_config=cri_pb2.DNSConfig(servers=["10.0.0.1"], searches=["a.b"], options=["ndots:5"]),
            port_mappings=[cri_pb2.PortMapping(container_port=80)],
            labels={"a": "b"},
            annotations={"c": "d"},
            linux=cri_pb2.LinuxPodSandboxConfig(
                cgroup_parent=self._client.pods[self.pod].linux.cgroup_parent,
                sysctls={"kernel.shm_rmid_forced": "1"},
                overhead=_resources(),
                resources=_resources(),
                security_context=cri_pb2.LinuxSandboxSecurityContext(
                    namespace_options=cri_pb2.NamespaceOption(network=cri_pb2.NODE, pid=cri_pb2.CONTAINER),
                    run_as_user=cri_pb2.Int64Value(value=1),
                    run_as_group=cri_pb2.Int64Value(value=1),
                    supplemental_groups=[5],
                ),
            ),
        )

    def _RunPodSandbox(self) -> cri_pb2.RunPodSandboxRequest:
        return cri_pb2.RunPodSandboxRequest(config=self._pod_config(f"walk{next(_numbers)}"))

    def _CreateContainer(self) -> cri_pb2.CreateContainerRequest:
        return cri_pb2.CreateContainerRequest(
            pod_sandbox_id=self.pod,
            sandbox_config=self._client.pods[self.pod],
            config=cri_pb2.ContainerConfig(
                metadata=cri_pb2.ContainerMetadata(name=f"walk{next(_numbers)}", attempt=1),
                image=cri_pb2.ImageSpec(image=catalogue.BUSYBOX, user_specified_image="busybox"),
                command=["sleep"],
                args=["1000"],
                working_dir="/tmp",
                envs=[cri_pb2.KeyValue(key="A", value=b"b")],
                mounts=[
                    cri_pb2.Mount(container_path="/mounted", host_path=str(self._directory), readonly=True)
                ],
                devices=[cri_pb2.Device(container_path="/dev/zz", host_path="/dev/null", permissions="rw")],
                labels={"a": "b"},
                annotations={"c": "d"},
                log_path="walk.log",
                linux=cri_pb2.LinuxContainerConfig(
                    resources=_resources(),
                    security_context=cri_pb2.LinuxContainerSecurityContext(
                        capabilities=cri_pb2.Capability(
                            add_capabilities=["NET_BIND_SERVICE"], drop_capabilities=["CHOWN"]
                        ),
                        namespace_options=cri_pb2.NamespaceOption(
                            network=cri_pb2.NODE, pid=cri_pb2.CONTAINER
                        ),
                        run_as_user=cri_pb2.Int64Value(value=1),
                        run_as_group=cri_pb2.Int64Value(value=1),
                        supplemental_groups=[5],
                        masked_paths=["/proc/kcore"],
                        readonly_paths=["/proc/sys"],
                    ),
                ),
            ),
        )

    def _StopPodSandbox(self) -> cri_pb2.StopPodSandboxRequest:
        return cri_pb2.StopPodSandboxRequest(pod_sandbox_id=_NOBODY)

    def _RemovePodSandbox(self) -> cri_pb2.RemovePodSandboxRequest:
        return cri_pb2.RemovePodSandboxRequest(pod_sandbox_id=_NOBODY)

    def _StopContainer(self) -> cri_pb2.StopContainerRequest:
        return cri_pb2.StopContainerRequest(container_id=_NOBODY, timeout=2)

    def _RemoveContainer(self) -> cri_pb2.RemoveContainerRequest:
        return cri_pb2.RemoveContainerRequest(container_id=_NOBODY)

    def _UpdateContainerResources(self) -> cri_pb2.UpdateContainerResourcesRequest:
        return cri_pb2.UpdateContainerResourcesRequest(
            container_id=self.container, linux=_resources(), annotations={"a": "b"}
        )

    def _UpdatePodSandboxResources(self) -> cri_pb2.UpdatePodSandboxResourcesRequest:
        return cri_pb2.UpdatePodSandboxResourcesRequest(
            pod_sandbox_id=self.pod, overhead=_resources(), resources=_resources()
        )

    def _ExecSync(self) -> cri_pb2.ExecSyncRequest:
        return cri_pb2.ExecSyncRequest(container_id=self.container, cmd=["true"], timeout=20)

    def _Exec(self) -> cri_pb2.ExecRequest:
        return cri_pb2.ExecRequest(container_id=self.container, cmd=["true"], stdout=True)

    def _Attach(self) -> cri_pb2.AttachRequest:
        return cri_pb2.AttachRequest(container_id=self.container, stdout=True)

    def _PortForward(self) -> cri_pb2.PortForwardRequest:
        return cri_pb2.PortForwardRequest(pod_sandbox_id=self.pod, port=[80])

    def _CheckpointContainer(self) -> cri_pb2.CheckpointContainerRequest:
        return cri_pb2.CheckpointContainerRequest(
            container_id=self.container, location=str(self._directory / "checkpoint.tar"), timeout=20
        )

    def _PullImage(self) -> cri_pb2.PullImageRequest:
        return cri_pb2.PullImageRequest(
            image=cri_pb2.ImageSpec(image=catalogue.BUSYBOX),
            sandbox_config=self._client.pods[self.pod],
        )

    def _ImageStatus(self) -> cri_pb2.ImageStatusRequest:
        return cri_pb2.ImageStatusRequest(image=cri_pb2.ImageSpec(image=catalogue.BUSYBOX))

    def _RemoveImage(self) -> cri_pb2.RemoveImageRequest:
        return cri_pb2.RemoveImageRequest(image=cri_pb2.ImageSpec(image=f"sha256:{_NOBODY}"))


def _resources() -> cri_pb2.LinuxContainerResources:
    return cri_pb2.LinuxContainerResources(
        cpu_period=100_000, cpu_quota=50_000, cpu_shares=512, memory_limit_in_bytes=64 * M
    )
