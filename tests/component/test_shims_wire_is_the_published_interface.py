"""Our definitions of what shims say against the published ones, as protoc understands both."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from tests.component.test_wire_is_the_published_interface import ROOT, messages, services
from tests.parts import build

OURS = "shim/runtimes/shimv2/proto"
STATUS = """syntax = "proto3"; package google.rpc; import "google/protobuf/any.proto";
message Status { int32 code = 1; string message = 2; repeated google.protobuf.Any details = 3; }"""
"""Imported by ttrpc's definition and not in its module; the name never travels."""

PAIRS = {
    "task": ("containerd-api", "runtime/task/v3/shim.proto"),
    "bootstrap": ("containerd-api", "runtime/bootstrap/v1/bootstrap.proto"),
    "events": ("containerd-api", "services/ttrpc/events/v1/events.proto"),
    "task_events": ("containerd-api", "events/task.proto"),
    "mount": ("containerd-api", "types/mount.proto"),
    "process": ("containerd-api", "types/task/task.proto"),
    "runc_options": ("containerd-api", "types/runc/options/oci.proto"),
    "runtime_options": ("containerd-api", "types/runtimeoptions/v1/api.proto"),
    "ttrpc": ("ttrpc", "request.proto"),
    "cgroup1": ("containerd-cgroups", "cgroup1/stats/metrics.proto"),
    "cgroup2": ("containerd-cgroups", "cgroup2/stats/metrics.proto"),
}
ELSEWHERE = {"containerd.types.Envelope", "ttrpc.Status"}
"""Ours to place: the one stands in a file of its own there, the other is google.rpc.Status."""


def compiled(directory: Path, name: str, scratch: Path) -> descriptor_pb2.FileDescriptorProto:
    (scratch / "google/rpc").mkdir(parents=True, exist_ok=True)
    (scratch / "google/rpc/status.proto").write_text(STATUS)
    made = scratch / "made"
    # as a module, so that protoc finds google.protobuf's own files
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{directory}", f"-I{scratch}", f"-o{made}", name]
    subprocess.run(command, check=True)
    return descriptor_pb2.FileDescriptorSet.FromString(made.read_bytes()).file[-1]


@pytest.mark.parametrize("ours", PAIRS)
def test_what_we_say_to_shims_equals_the_published_interface(tmp_path: Path, ours: str) -> None:
    part, path = PAIRS[ours]
    mine = compiled(ROOT, f"{OURS}/{ours}.proto", tmp_path)
    theirs = compiled(build.module_source(part), path, tmp_path)
    assert (mine.package, mine.syntax) == (theirs.package, theirs.syntax)
    published, found = messages(theirs, theirs.package), messages(mine, mine.package)
    if ours == "ttrpc":
        type_, _ = published["ttrpc.Response"]["fields"]["status"]["type"]
        published["ttrpc.Response"]["fields"]["status"]["type"] = (type_, ".ttrpc.Status")
    assert {name for name in found if name not in published} <= ELSEWHERE
    shared = {name: found[name] for name in found if name in published}
    assert shared
    assert {n: (found[n], published[n]) for n in shared if found[n] != published[n]} == {}
    assert services(mine) == services(theirs)


def test_version_2_of_the_task_service_differs_in_its_package_alone(tmp_path: Path) -> None:
    module = build.module_source("containerd-api")
    old, new = (compiled(module, f"runtime/task/{v}/shim.proto", tmp_path) for v in ("v2", "v3"))

    def told(file: descriptor_pb2.FileDescriptorProto) -> str:
        return repr((messages(file, file.package), services(file))).replace(file.package, "PACKAGE")

    assert told(old) == told(new)
