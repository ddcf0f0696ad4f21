"""A real containerd of the tests' own that only keeps images, to have its content store."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.machine import PATIENCE
from tests.parts.build import program

_CONFIG = """\
version = 3
root = "{top}/root"
state = "{top}/state"
disabled_plugins = [
  "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri",
  "io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
address = "{top}/containerd.sock"
"""


@dataclass(frozen=True, slots=True)
class Containerd:
    top: Path

    @property
    def root(self) -> Path:
        return self.top / "root"

    def ctr(self, *arguments: str, namespace: str = "k8s.io") -> str:
        """What `ctr` says."""
        address = self.top / "containerd.sock"
        done = subprocess.run(
            [program("containerd", "ctr"), "--address", address, "--namespace", namespace, *arguments],
            check=False, capture_output=True, text=True, timeout=60 * PATIENCE,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"ctr {' '.join(arguments)}: {done.stderr}")
        return done.stdout


@contextlib.contextmanager
def running(top: Path) -> Iterator[Containerd]:
    """One below a directory, until the block ends."""
    top.mkdir(parents=True)
    config = top / "config.toml"
    config.write_text(_CONFIG.format(top=top))
    made = Containerd(top)
    with (top / "log").open("wb") as log:
        process = subprocess.Popen(
            [program("containerd", "containerd"), "--config", config], stdout=log, stderr=log
        )
        try:
            end = time.monotonic() + 30 * PATIENCE
            while True:
                try:
                    made.ctr("version")
                    break
                except RuntimeError:
                    if process.poll() is not None or time.monotonic() > end:
                        raise RuntimeError((top / "log").read_text()[-2000:]) from None
                    time.sleep(0.05)
            yield made
        finally:
            process.terminate()
            process.wait()
