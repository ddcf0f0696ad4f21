"""A container's record as its driver needs it."""

from __future__ import annotations

from pathlib import Path

from shim.paths import Paths
from shim.records import ContainerRecord
from shim.runtimes.driver import Target


def target(paths: Paths, record: ContainerRecord) -> Target:
    """What every verb of the driver is given."""
    return Target(
        id=record.id,
        pod_id=record.pod_id,
        directory=paths.container(record.id),
        log_path=Path(record.log_path) if record.log_path else None,
        tty=record.spec.tty,
        stdin=record.spec.stdin,
        stdin_once=record.spec.stdin_once,
        cgroup=record.cgroup,
        process=record.process,
        monitor=record.monitor,
    )
