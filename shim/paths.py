"""Where things lie: the layout of the state directory and of the run directory, and nothing else.

The state directory outlives a reboot, the run directory does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from oci.workload import ContainerId, PodId


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    state_dir: Path  # /var/lib/crisp
    run_dir: Path  # /run/crisp
    image_dir: Path | None = None  # where images lie if not in the state directory

    @property
    def pods(self) -> Path:
        return self.state_dir / "pods"

    @property
    def containers(self) -> Path:
        return self.state_dir / "containers"

    @property
    def images(self) -> Path:
        return self.image_dir or self.state_dir / "images"

    @property
    def preloaded(self) -> Path:
        """Which archives were imported by themselves (`shim/images/preload.py`)."""
        return self.state_dir / "preloaded.json"

    @property
    def namespaces(self) -> Path:
        return self.run_dir / "ns"

    @property
    def shown(self) -> Path:
        """Root file systems of pods with a user namespace, where others may walk (`shim/shown.py`)."""
        return self.run_dir.with_name(f"{self.run_dir.name}-roots")

    @property
    def logs(self) -> Path:
        """Logs of pods of `crisp run`; kubelet names its own directories."""
        return self.state_dir / "logs"

    def pod(self, id_: PodId) -> Path:
        """One pod's directory: its generated files, its /dev/shm, its record."""
        return self.pods / id_

    def container(self, id_: ContainerId) -> Path:
        """One container's directory, which is its OCI bundle too."""
        return self.containers / id_
