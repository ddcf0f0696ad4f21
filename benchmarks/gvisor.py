"""gVisor's shim where containerd finds it, also on a machine where the shim may not lower its OOM score.

There containerd cannot start it. It is started in crispd's way then (`bootstrap.bearing_refusals`), so that
there is something to compare with.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from benchmarks.sides import may_lower_oom_score
from shim.runtimes.shimv2.bootstrap import USER_NAMESPACE, bearing_refusals
from tests.parts.build import program

_WRAPPER = """\
#!/bin/sh
for word; do
    [ "$word" = start ] && exec {start} "$@"
done
exec {shim} "$@"
"""


def place(directory: Path) -> Path:
    """A directory for containerd's PATH with shim and runsc; it may be there already."""
    shim, runsc = program("runsc", "containerd-shim-runsc-v1"), program("runsc", "runsc")
    directory.mkdir(exist_ok=True)
    for path in directory.iterdir():
        path.unlink()
    (directory / runsc.name).symlink_to(runsc)
    found = directory / shim.name
    if may_lower_oom_score():
        found.symlink_to(shim)
        return directory
    uid_map = directory / "uid_map"
    uid_map.write_text(USER_NAMESPACE)
    start = shlex.join(bearing_refusals([str(shim)], uid_map))
    found.write_text(_WRAPPER.format(start=start, shim=shlex.quote(str(shim))))
    found.chmod(0o755)
    return directory
