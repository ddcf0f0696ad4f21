"""A real shim where the machine has no CAP_SYS_RESOURCE: Go's shims set their OOM score, and give up without.

containerd's library takes the refusal only in a user namespace, which it knows by /proc/self/uid_map. So the
program is started with an empty one, in a mount namespace that gets all mounts of the machine.
"""

from __future__ import annotations

from pathlib import Path

_PROGRAM = """#!/bin/sh
for word; do
    if [ "$word" = start ]; then
        exec unshare --mount --propagation slave \\
            /bin/sh -c 'mount --bind /dev/null /proc/$$/uid_map && exec {real} "$@"' sh "$@"
    fi
done
exec {real} "$@"
"""


def may_set_scores() -> bool:
    """Whether this process may lower OOM scores: CAP_SYS_RESOURCE is number 24."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> 24 & 1)
    return False


def wrap(directory: Path, real: Path) -> Path:
    """The shim itself where that is possible, else a program of its name that starts it so."""
    if may_set_scores():
        return real
    program = directory / real.name
    program.write_text(_PROGRAM.format(real=real))
    program.chmod(0o755)
    return program
