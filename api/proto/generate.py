"""Makes the Python modules of all `.proto` files of the tree: `python -m api.proto.generate [DIRECTORY]`.

Needs grpcio-tools and mypy-protobuf (the `dev` extra). What it writes is committed, and a unit test proves
that the two are equal; a new version of the generator is therefore a visible change.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

PROTOS = ("api/proto/cri.proto", "api/proto/admin.proto")
"""Served or called over gRPC."""
ROOT = Path(__file__).resolve().parents[2]
PLAIN = tuple(
    str(path.relative_to(ROOT)) for path in sorted((ROOT / "shim/runtimes/shimv2/proto").glob("*.proto"))
)
"""Messages that ttrpc carries: no gRPC stubs."""


def generate(destination: Path) -> None:
    """Write each `*_pb2*` below `destination`, where its `.proto` is in the tree.

    Raises RuntimeError when protoc refuses a file.
    """
    from grpc_tools import protoc

    published = Path(protoc.__file__).parent / "_proto"  # google.protobuf's own files

    # protoc finds its plug-ins on PATH; mypy-protobuf installs them beside the interpreter.
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), before])
    try:
        status = 0
        for files, kinds in (
            (PROTOS, ("python", "grpc_python", "mypy", "mypy_grpc")),
            (PLAIN, ("python", "mypy")),
        ):
            outputs = (f"--{kind}_out={destination}" for kind in kinds)
            status = status or protoc.main(
                ["protoc", f"--proto_path={ROOT}", f"--proto_path={published}", *outputs, *files]
            )
    finally:
        os.environ["PATH"] = before
    if status != 0:
        raise RuntimeError(f"protoc ended with status {status}")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
