"""Ties a service object to a gRPC server: one handler a method, made from the service's descriptor.

`RunPodSandbox` is served by the object's `run_pod_sandbox(request)`. There is no other wiring, so no method
can be forgotten: what has neither a method nor a line in the table of unbuilt calls stops the daemon's start.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from api.door import Door, Stream, Unary
from oci.errors import BadInput, Unsupported

Answer = TypeVar("Answer")


def snake(name: str) -> str:
    """ "RunPodSandbox" -> "run_pod_sandbox", "Import" -> "import_"."""
    words = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    return f"{words}_" if keyword.iskeyword(words) else words


def bind(
    server: grpc.aio.Server,
    service: ServiceDescriptor,
    servicer: object,
    *,
    door: Door,
    unbuilt: Mapping[str, str],
) -> None:
    """Serve `service` by `servicer`. Raises ValueError for a method that is missing, or built and unbuilt."""
    rpcs = {method.name: _handler(service, method, servicer, door, unbuilt) for method in service.methods}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, rpcs),))


def _handler(
    service: ServiceDescriptor,
    method: MethodDescriptor,
    servicer: object,
    door: Door,
    unbuilt: Mapping[str, str],
) -> Any:
    verb = getattr(servicer, snake(method.name), None)
    told = unbuilt.get(f"{service.name}/{method.name}")
    if (verb is None) == (told is None):
        state = "neither served nor listed as unbuilt" if verb is None else "served and listed as unbuilt"
        raise ValueError(f"{service.name}/{method.name} is {state}")
    parse = _parser(GetMessageClass(method.input_type))
    write = _serializer(GetMessageClass(method.output_type))
    if method.server_streaming:
        stream = door.stream(service.name, method.name, _read(verb or _absent_stream(method.name, told)))
        return grpc.unary_stream_rpc_method_handler(
            stream, request_deserializer=parse, response_serializer=write
        )
    unary = door.unary(service.name, method.name, _read(verb or _absent_unary(method.name, told)))
    return grpc.unary_unary_rpc_method_handler(unary, request_deserializer=parse, response_serializer=write)


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """Stands for a request that is no message until the door can refuse it; gRPC would say UNKNOWN."""

    why: str


def _parser(kind: type[Message]) -> Callable[[bytes], Message | _Unreadable]:
    """How bytes become a request."""
    name = kind.DESCRIPTOR.full_name

    def parse(data: bytes) -> Message | _Unreadable:
        try:
            return kind.FromString(data)
        except DecodeError as error:
            reason = str(error).rpartition(": ")[2].lower()
            return _Unreadable(
                f"request: its {len(data)} bytes are no {name} ({reason}),"
                " does the client speak this interface?"
            )

    return parse


def _read(verb: Callable[[Any], Answer]) -> Callable[[Any], Answer]:
    """The verb, for requests that could be read."""

    def enter(request: Any) -> Answer:
        if isinstance(request, _Unreadable):
            raise BadInput(request.why)
        return verb(request)

    return enter


def _serializer(kind: type[Message]) -> Callable[[Message | bytes], bytes]:
    """How a verb's answer becomes bytes; one that is bytes is serialized already (`api/listing.py`)."""
    serialize = kind.SerializeToString

    def write(answer: Message | bytes) -> bytes:
        return answer if isinstance(answer, bytes) else serialize(answer)

    return write


def _absent_unary(method: str, told: str | None) -> Unary:
    async def refuse(_request: Any) -> Any:
        raise Unsupported(f"{method} is not served: {told}")

    return refuse


def _absent_stream(method: str, told: str | None) -> Stream:
    async def refuse(_request: Any) -> AsyncGenerator[Any, None]:
        if told is not None:
            raise Unsupported(f"{method} is not served: {told}")
        yield  # what makes this function a generator

    return refuse
