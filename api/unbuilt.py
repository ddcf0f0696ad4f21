"""RPCs of the container runtime interface that Crisp does not serve yet, with what the caller is told.

The one table: `api/binding.py` answers from it, and `docs/rpcs.md` is made from it
(`python -m api.unbuilt > docs/rpcs.md`).
"""

from __future__ import annotations

import sys

from api.proto import cri_pb2

_CHECKPOINT = (
    "a pod's containers cannot be paused and captured as one yet; CheckpointContainer captures each by itself"
)
_RESTORE = "no driver starts processes out of a checkpoint yet; create the pod anew from its images"

UNBUILT: dict[str, str] = {
    "RuntimeService/CheckpointPod": _CHECKPOINT,
    "RuntimeService/RestorePod": _RESTORE,
}
"""Service and method -> what the caller is told; the code is always UNIMPLEMENTED."""


def document() -> str:
    """The page for users: every RPC of the interface, and which of them are answered UNIMPLEMENTED."""
    lines = [
        "# The container runtime interface, call by call",
        "",
        "Crisp speaks CRI v1 as cri-api 0.37.2 defines it. A call that is not served answers `UNIMPLEMENTED`",
        "with the words below; kubelet falls back where it has another way.",
        "",
    ]
    for service in cri_pb2.DESCRIPTOR.services_by_name.values():
        lines += [f"## {service.name}", "", "| call | served | otherwise |", "|---|---|---|"]
        for method in service.methods:
            told = UNBUILT.get(f"{service.name}/{method.name}")
            lines.append(f"| {method.name} | {'yes' if told is None else 'no'} | {told or ''} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
