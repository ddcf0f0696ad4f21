"""Makes the Python modules of the `.proto` files beside it: `python -m api.proto.generate [DIRECTORY]`.

Needs grpcio-tools and mypy-protobuf (the `dev` extra). What it writes is committed, and a unit test proves
that the two are equal; a new version of the generator is therefore a visible change.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

PROTOS = ("api/proto/cri.proto", "api/proto/admin.proto")
ROOT = Path(__file__).resolve().parents[2]


def generate(destination: Path) -> None:
    """Write `api/proto/*_pb2*` below `destination`. Raises RuntimeError when protoc refuses a file."""
    from grpc_tools import protoc

    # protoc finds its plug-ins on PATH; mypy-protobuf installs them beside the interpreter.
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), before])
    try:
        outputs = (f"--{kind}_out={destination}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc"))
        status = protoc.main(["protoc", f"--proto_path={ROOT}", *outputs, *PROTOS])
    finally:
        os.environ["PATH"] = before
    if status != 0:
        raise RuntimeError(f"protoc ended with status {status}")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
