"""Exec, Attach and PortForward of CRI: each checks the request and answers with a URL.

What the URL stands for begins when a client connects to it: then the object is looked up again, by its whole
id and in the caller's realm.
"""

from __future__ import annotations

import socket

from api.ports import Containers, Pods
from api.proto import cri_pb2
from api.streaming.channels import Wanted
from api.streaming.commands import RemoteCommand
from api.streaming.forwards import Forward
from api.streaming.server import StreamingServer
from api.streaming.upgrade import Kind
from api.translate.container_request import arguments
from oci.errors import BadInput
from shim.runtimes.driver import Output, Session, Size


class Connecting:
    """The part of RuntimeService that hands out URLs."""

    _realm: str
    _pods: Pods
    _containers: Containers
    _streams: StreamingServer

    async def exec(self, request: cri_pb2.ExecRequest) -> cri_pb2.ExecResponse:
        wanted = _wanted(request)
        if not request.cmd:
            raise BadInput("cmd: empty")
        command = arguments(request.cmd, "cmd")
        realm, containers = self._realm, self._containers
        id_ = containers.check_exec(realm, _named(request.container_id))
        outputs = frozenset(
            output
            for output, asked in ((Output.STDOUT, wanted.stdout), (Output.STDERR, wanted.stderr))
            if asked
        )

        async def start(size: Size | None) -> Session:
            return await containers.exec_stream(
                realm, id_, command, terminal=wanted.tty, stdin=wanted.stdin, outputs=outputs, size=size
            )

        url = self._streams.url(Kind.EXEC, RemoteCommand(wanted=wanted, open=start))
        return cri_pb2.ExecResponse(url=url)

    async def attach(self, request: cri_pb2.AttachRequest) -> cri_pb2.AttachResponse:
        wanted = _wanted(request)
        realm, containers = self._realm, self._containers
        id_ = containers.check_attach(realm, _named(request.container_id), terminal=wanted.tty)

        async def start(size: Size | None) -> Session:
            return await containers.attach(realm, id_, size=size)

        url = self._streams.url(Kind.ATTACH, RemoteCommand(wanted=wanted, open=start))
        return cri_pb2.AttachResponse(url=url)

    async def port_forward(self, request: cri_pb2.PortForwardRequest) -> cri_pb2.PortForwardResponse:
        for index, port in enumerate(request.port):
            if not 0 < port <= 65535:
                raise BadInput(f"port[{index}]: {port} is no port")
        if len(request.port) > _MOST_PORTS:
            raise BadInput(f"port: {len(request.port)} ports; {_MOST_PORTS} is the limit")
        if not request.pod_sandbox_id:
            raise BadInput("pod_sandbox_id: empty")
        realm, pods = self._realm, self._pods
        id_ = pods.check_forward(realm, request.pod_sandbox_id)

        async def dial(port: int) -> socket.socket:
            return await pods.dial(realm, id_, port)

        url = self._streams.url(Kind.FORWARD, Forward(ports=tuple(request.port), dial=dial))
        return cri_pb2.PortForwardResponse(url=url)


_MOST_PORTS = 127
"""Two channels a port, each numbered by one byte."""


def _named(container_id: str) -> str:
    if not container_id:
        raise BadInput("container_id: empty")
    return container_id


def _wanted(request: cri_pb2.ExecRequest | cri_pb2.AttachRequest) -> Wanted:
    if request.tty and request.stderr:
        raise BadInput("stderr: a terminal has one output, which is stdout")
    if not (request.stdin or request.stdout or request.stderr):
        raise BadInput("stdin, stdout, stderr: none is asked for")
    return Wanted(stdin=request.stdin, stdout=request.stdout, stderr=request.stderr, tty=request.tty)
