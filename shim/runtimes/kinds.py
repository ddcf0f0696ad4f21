"""Kinds of handlers: the interface by which Crisp, or somebody else's Python package, adds a way to run pods.

A kind finds out whether a handler of it can be used on this machine (`probe`) and makes the driver for it.
Crisp's own are handed over by the composition root; those of other packages are entry points of the group
`crisp.handlers`, loaded here. docs/handlers/plugins.md explains both sides. Knows no kind by name.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final, Protocol

from config.models import HandlerSettings
from oci.errors import Unsupported
from shim.cgroups import Hierarchies
from shim.runtimes.driver import Driver, ExitListener
from shim.runtimes.table import Handler

log = logging.getLogger(__name__)

GROUP: Final = "crisp.handlers"
INTERFACE: Final = 1
"""Of this file, `driver.py`, and the members of `Handler`: raised when a kind written for it would break."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A handler as it was configured. `root` is its runtime's state directory, `source` "FILE:LINE"."""

    name: str
    settings: HandlerSettings
    root: Path
    source: str

    def refuse(self, *keys: str) -> None:
        """Raise Unsupported for a key that was set and means nothing to handlers of this kind."""
        for key in keys:
            if getattr(self.settings, key):
                raise Unsupported(
                    f"handlers.{self.name}.{key}: does not apply to handlers of kind {self.settings.kind!r}"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What probing is done with: the kernel's version, where programs are looked up, seconds for one call."""

    kernel: tuple[int, ...]
    path: str
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverContext:
    """What the daemon gives every driver. Times are seconds; `monitors` is a cgroup below each hierarchy."""

    run_dir: Path
    exits: ExitListener
    hierarchies: Hierarchies
    systemd: bool
    monitors: str
    timeout: float
    kill_time: float
    exec_drain: float


class Kind(Protocol):
    """One way of running pods."""

    @property
    def interface(self) -> int:
        """The INTERFACE that it was written for."""
        ...

    async def probe(self, candidate: Candidate, machine: Machine) -> Handler:
        """The handler, ready to be driven. Raises a CrispError that says why it cannot be used."""
        ...

    def driver(self, handler: Handler, context: DriverContext) -> Driver:
        """Its driver; called on the event loop, and must not block."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenKind:
    """A kind that a package announces and that cannot be used: every handler of it says why."""

    reason: str
    interface: int = INTERFACE

    async def probe(self, candidate: Candidate, machine: Machine) -> Handler:
        raise Unsupported(f"handlers.{candidate.name}.kind: {self.reason}")

    def driver(self, handler: Handler, context: DriverContext) -> Driver:
        raise Unsupported(f"handlers.{handler.name}.kind: {self.reason}")


def with_plugins(own: Mapping[str, Kind]) -> dict[str, Kind]:
    """Crisp's own kinds and those of installed packages; a broken package disables only its own. Blocking."""
    kinds = dict(own)
    for point in entry_points(group=GROUP):
        package = point.dist.name if point.dist is not None else point.value
        if point.name in kinds:
            log.error("kind of handlers is taken", extra={"kind": point.name, "package": package})
            continue
        try:
            kind: Kind = point.load()()
            written_for = kind.interface
        except Exception as error:
            log.exception("package with a kind of handlers", extra={"kind": point.name, "package": package})
            kinds[point.name] = BrokenKind(reason=f"package {package} cannot be loaded: {error!r}")
            continue
        if written_for != INTERFACE:
            reason = f"package {package} is written for interface {written_for}, this is {INTERFACE}"
            kinds[point.name] = BrokenKind(reason=reason)
            log.error("kind of handlers", extra={"kind": point.name, "reason": reason})
            continue
        kinds[point.name] = kind
        log.info("kind of handlers", extra={"kind": point.name, "package": package})
    return kinds
