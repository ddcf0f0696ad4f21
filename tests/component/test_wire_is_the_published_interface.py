"""Our CRI definition against the published one (Go module k8s.io/cri-api), as protoc understands both."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2

from tests.parts import build

ROOT = Path(__file__).resolve().parents[2]


def compiled(directory: Path, name: str, destination: Path) -> descriptor_pb2.FileDescriptorProto:
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{directory}", f"-o{destination}", name], check=True
    )
    files = descriptor_pb2.FileDescriptorSet.FromString(destination.read_bytes()).file
    return next(file for file in files if file.name == name)


def enum(declared: descriptor_pb2.EnumDescriptorProto) -> dict[str, Any]:
    return {
        "values": {value.name: (value.number, value.options.deprecated) for value in declared.value},
        "first": declared.value[0].name,
        "alias": declared.options.allow_alias,
    }


def messages(declared: Any, prefix: str) -> dict[str, Any]:
    """Every message and enum below `declared` by its full name, with all that decides the wire."""
    found: dict[str, Any] = {}
    nested = declared.nested_type if hasattr(declared, "nested_type") else declared.message_type
    for message in nested:
        name = f"{prefix}.{message.name}"
        oneofs = [oneof.name for oneof in message.oneof_decl]
        found[name] = {
            "fields": {
                field.name: {
                    "number": field.number,
                    "type": (field.Type.Name(field.type), field.type_name),
                    "label": field.Label.Name(field.label),
                    "oneof": oneofs[field.oneof_index] if field.HasField("oneof_index") else None,
                    "optional": field.proto3_optional,
                    "json": field.json_name,
                    "default": field.default_value,
                    "packed": (field.options.HasField("packed"), field.options.packed),
                    "deprecated": field.options.deprecated,
                }
                for field in message.field
            },
            "map": message.options.map_entry,
            "oneofs": oneofs,
            "reserved": sorted((r.start, r.end) for r in message.reserved_range),
        }
        found |= messages(message, name)
    found |= {f"{prefix}.{declared_enum.name}": enum(declared_enum) for declared_enum in declared.enum_type}
    return found


def services(file: descriptor_pb2.FileDescriptorProto) -> dict[str, Any]:
    return {
        service.name: {
            method.name: (
                method.input_type, method.output_type, method.client_streaming, method.server_streaming,
            )
            for method in service.method
        }
        for service in file.service
    }  # fmt: skip


def test_every_name_number_type_and_label_equals_the_published_interface(tmp_path: Path) -> None:
    published_at = build.module_source("cri-api") / "pkg/apis/runtime/v1"
    ours = compiled(ROOT, "api/proto/cri.proto", tmp_path / "ours")
    published = compiled(published_at, "api.proto", tmp_path / "published")

    assert (ours.package, ours.syntax) == (published.package, published.syntax)
    assert services(ours) == services(published)
    found, expected = messages(ours, ours.package), messages(published, published.package)
    assert sorted(found) == sorted(expected)
    assert {name: (found[name], expected[name]) for name in expected if found[name] != expected[name]} == {}
    assert sum(len(methods) for methods in services(ours).values()) == 43
