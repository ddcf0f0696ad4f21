"""What running pulls are doing, for people: counters that threads write and anyone may look at."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from enum import Enum

DONE = "done"
"""The stage of a pull that ended well."""


class Phase(Enum):
    WAITING = "waiting"
    DOWNLOADING = "downloading"
    UNPACKING = "unpacking"
    DONE = "done"
    CHECKING = "checking"
    SHARED = "shared"  # in the store already, or made ready by another pull


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerProgress:
    digest: str  # of the blob in the registry
    phase: Phase
    received: int  # compressed bytes
    total: int  # compressed bytes, as the manifest says
    kept: int = 0  # of those received, what an earlier try had left


@dataclass(frozen=True, slots=True, kw_only=True)
class PullProgress:
    """One running pull. `rate` is the mean since its start, bytes a second of what came over the network."""

    reference: str
    stage: str  # "manifest", "layers", "commit", DONE
    endpoint: str  # the registry or mirror that answers, "" before one did
    credential_source: str  # "anonymous", "request", "hosts.toml header"; never a secret
    origin: str  # file:line that named the endpoint, "" for the default
    started_at: int  # ns since the Unix epoch
    received: int
    total: int
    rate: float
    layers: tuple[LayerProgress, ...]
    number: int = 0  # of the pull, from 1 on while the daemon lives


@dataclass(frozen=True, slots=True, kw_only=True)
class PullTotals:
    """Since the start: how pulls ended, and the compressed bytes of layers that came from registries."""

    ok: int
    failed: int
    cancelled: int
    received: int


class LayerMeter:
    """The counter of one layer, written by the thread that fetches it."""

    def __init__(self, digest: str, total: int) -> None:
        self.digest = digest
        self.total = total
        self.received = 0
        self.kept = 0
        self.phase = Phase.WAITING

    def snapshot(self) -> LayerProgress:
        received = min(self.received, self.total)
        return LayerProgress(
            digest=self.digest,
            phase=self.phase,
            received=received,
            total=self.total,
            kept=min(self.kept, received),
        )


class PullMeter:
    """The counters of one pull."""

    def __init__(self, reference: str, number: int = 0) -> None:
        self.reference = reference
        self.number = number
        self.stage = "manifest"
        self.endpoint = ""
        self.credential_source = "anonymous"
        self.origin = ""
        self.started_at = time.time_ns()
        self._begun = time.monotonic()
        self._lock = threading.Lock()
        self._layers: list[LayerMeter] = []

    def add(self, meter: LayerMeter) -> LayerMeter:
        with self._lock:
            self._layers.append(meter)
        return meter

    def snapshot(self) -> PullProgress:
        with self._lock:
            layers = tuple(meter.snapshot() for meter in self._layers)
        received = sum(layer.received for layer in layers)
        came = sum(layer.received - layer.kept for layer in layers if layer.phase is not Phase.SHARED)
        return PullProgress(
            reference=self.reference,
            stage=self.stage,
            endpoint=self.endpoint,
            credential_source=self.credential_source,
            origin=self.origin,
            started_at=self.started_at,
            received=received,
            total=sum(layer.total for layer in layers),
            rate=came / max(time.monotonic() - self._begun, 0.001),
            layers=layers,
            number=self.number,
        )
