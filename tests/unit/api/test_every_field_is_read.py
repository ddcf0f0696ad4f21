"""No field of the large requests is lost: each changes what is asked, or is refused, or is listed here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from api.proto.cri_pb2 import Int64Value
from api.translate.container_request import container_spec
from api.translate.pod_request import pod_spec
from oci.errors import BadInput
from tests.unit.api import requests

WINDOWS = "windows nodes are another runtime's"
ANSWER = "only answers carry it"
WINS = "the structured profile beside it wins; alone it counts, which another test shows"

IGNORED = {
    "RunPodSandboxRequest": {"config.windows": WINDOWS,
        "config.linux.security_context.seccomp_profile_path": WINS},
    "CreateContainerRequest": {
        "pod_sandbox_id": "an id, which the verb resolves",
        "config.windows": WINDOWS,
        "config.image.image_ref": ANSWER,
        "config.mounts.image.image_ref": ANSWER,
        "config.linux.security_context.apparmor_profile": WINS,
        "config.linux.security_context.seccomp_profile_path": WINS,
        "sandbox_config.windows": WINDOWS,
        "sandbox_config.linux.security_context.seccomp_profile_path": WINS,
    },
}  # fmt: skip

TEXTS = ("zz", "/zz", "7-8", "3MB", "noexec", "r")


def translate_pod(request: Any) -> object:
    return pod_spec(request.config, "config", handler=request.runtime_handler)


def translate_container(request: Any) -> object:
    return container_spec(request.config, "config"), pod_spec(request.sandbox_config, "sandbox_config")


CASES: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "RunPodSandboxRequest": (requests.run_pod, translate_pod),
    "CreateContainerRequest": (requests.create_container, translate_container),
}


def is_leaf(field: FieldDescriptor) -> bool:
    kind = field.message_type
    if kind is None or field.name == "windows":
        return True
    return bool(kind.GetOptions().map_entry) or kind.name == "Int64Value"


def paths(kind: Descriptor, prefix: str = "") -> set[str]:
    """Every leaf that the interface has, whatever a request holds."""
    found = set()
    for field in kind.fields:
        here = f"{prefix}{field.name}"
        found |= {here} if is_leaf(field) else paths(field.message_type, f"{here}.")
    return found


def leaves(message: Any, prefix: str = "") -> Iterator[tuple[str, Any, FieldDescriptor]]:
    """Each leaf with the message that holds it, for every message that the request has."""
    for field in message.DESCRIPTOR.fields:
        here = f"{prefix}{field.name}"
        if is_leaf(field):
            yield here, message, field
        elif field.is_repeated:
            for element in getattr(message, field.name):
                yield from leaves(element, f"{here}.")
        elif message.HasField(field.name):
            yield from leaves(getattr(message, field.name), f"{here}.")


def changed(message: Any, field: FieldDescriptor) -> Iterator[None]:
    """Put one other value after another into the field; the message is restored after each."""
    before = type(message)()
    before.CopyFrom(message)
    for value in values(message, field):
        put(message, field, value)
        yield
        message.CopyFrom(before)


def values(message: Any, field: FieldDescriptor) -> list[Any]:
    if field.name == "windows":
        return [None]
    if field.message_type is not None:
        return [{"k.k": "v"}] if field.message_type.GetOptions().map_entry else [Int64Value(value=3)]
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return [b"zz"] if field.type == FieldDescriptor.TYPE_BYTES else list(TEXTS)
        case FieldDescriptor.CPPTYPE_BOOL:
            return [not getattr(message, field.name)]
        case FieldDescriptor.CPPTYPE_ENUM:
            return [
                number for number in field.enum_type.values_by_number if number != current(message, field)
            ]
    return [3, 2000, 200 << 20]


def current(message: Any, field: FieldDescriptor) -> Any:
    return None if field.is_repeated else getattr(message, field.name)


def put(message: Any, field: FieldDescriptor, value: Any) -> None:
    if field.name == "windows":
        getattr(message, field.name).SetInParent()
    elif isinstance(value, Int64Value):
        getattr(message, field.name).CopyFrom(value)
    elif isinstance(value, dict):
        getattr(message, field.name).update(value)
    elif field.is_repeated:
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)


@pytest.mark.parametrize("name", CASES)
def test_every_field_of_the_request_counts_or_is_listed_with_a_reason(name: str) -> None:
    make, translate = CASES[name]
    request = make()
    assert isinstance(request, Message)
    baseline = translate(request)
    counts: dict[str, bool] = {}
    for path, message, field in leaves(request):
        for _ in changed(message, field):
            try:
                differs = translate(request) != baseline
            except BadInput as error:
                differs = (
                    str(error).removeprefix("ImageVolumeMountFailed: ").startswith(("config", "sandbox"))
                )
            counts[path] = counts.get(path, False) or differs
    assert translate(request) == baseline
    assert set(counts) == paths(request.DESCRIPTOR)
    silent = {path for path, counted in counts.items() if not counted}
    assert silent == set(IGNORED[name])
