"""Handlers as the life cycle asks for them: today's for new pods, and for each pod the one it began with.

The table can be replaced while the daemon runs. A pod's record keeps its handler's definition; as long as
that is not today's, a driver made from it is kept beside the others.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import replace

from oci.bundle.inputs import HandlerTraits
from oci.errors import CrispError, Unsupported
from oci.policy import Choice, choose
from oci.workload import PodSpec
from shim.runtimes.driver import Driver
from shim.runtimes.table import Handler, HandlerTable, InvalidHandler

log = logging.getLogger(__name__)

Definition = tuple[str, str]
"""A handler's name and the definition that a record keeps of it."""


class Handlers:
    """`make` makes the driver of a handler; `probe` looks again at what a record's definition says."""

    def __init__(
        self,
        table: HandlerTable,
        *,
        make: Callable[[Handler], Driver],
        probe: Callable[[str, str], Awaitable[Handler | InvalidHandler]],
    ) -> None:
        self._make = make
        self._probe = probe
        self._drivers: dict[Definition, Driver] = {}
        self._known: dict[Definition, Handler] = {}
        self._idle: set[Definition] = set()  # neither today's nor in use, when last looked
        self.table = HandlerTable()
        self._take(table)

    def driver(self, name: str) -> Driver:
        """The driver of new pods of a handler, "" for the default. Raises as `HandlerTable.resolve`."""
        handler = self.table.resolve(name)
        return self._drivers[handler.name, handler.definition]

    def choose(self, spec: PodSpec) -> Choice:
        """The handler that a new pod gets by name or by the node's policy, and why. Raises BadInput."""
        return choose(spec, self.table.policy)

    def definition(self, name: str) -> str:
        """What the record of a new pod keeps of its handler."""
        return self.table.resolve(name).definition

    def started(self, name: str, definition: str) -> Driver:
        """The driver of a pod that began with this definition; "" is of a record older than definitions."""
        driver = self._drivers.get((name, definition))
        if driver is not None:
            return driver
        if definition:
            broken = self.table.invalid.get(name)
            why = broken.reason if broken is not None else "it was removed from the configuration"
            raise Unsupported(f"handler {name!r}, with which the pod was started, cannot be used: {why}")
        return self.driver(name)

    def drivers(self) -> Iterable[Driver]:
        """Every driver that there is."""
        return list(dict.fromkeys(self._drivers.values()))

    def traits(self, name: str, definition: str = "") -> HandlerTraits:
        """What a pod's handler can do and what its table entry allows."""
        known = self._known.get((name, definition))
        return (known or self.table.resolve(name)).traits

    def former(self) -> list[Handler]:
        """What is kept for pods that were started with it and is not today's any more."""
        today = list(self.table.handlers.values())
        return [handler for handler in self._known.values() if handler not in today]

    def began_with(self, name: str, definition: str) -> Handler | None:
        """The handler that a pod's record names, None where nothing is known of it."""
        return self._known.get((name, definition)) or self.table.handlers.get(name)

    async def revive(self, wanted: Iterable[Definition]) -> None:
        """After a restart: make drivers for what records name and today's table does not."""
        for name, definition in dict.fromkeys(wanted):
            if not definition or (name, definition) in self._drivers:
                continue
            try:
                found = await self._probe(name, definition)
            except CrispError as error:
                found = InvalidHandler(name=name, reason=error.message, source="a pod's record")
            today = self.table.handlers.get(name)
            if isinstance(found, InvalidHandler):
                log.error(
                    "pods cannot be driven by what they were started with",
                    extra={"handler": name, "reason": found.reason},
                )
                if today is None:
                    continue
                found = today
            if (
                today is not None and found.definition == today.definition
            ):  # only the program's version moved on
                self._drivers[name, definition] = self._drivers[name, today.definition]
                self._known[name, definition] = today
                continue
            self._add((name, definition), replace(found, definition=definition))

    async def take(self, table: HandlerTable, in_use: Collection[Definition]) -> None:
        """From now on new pods get their handlers from this table. `in_use` are the definitions of all pods.

        What was of no use at the last time either is closed: until then a pod may have been about to begin.
        """
        self._take(table)
        today = {(handler.name, handler.definition) for handler in table.handlers.values()}
        idle = {definition for definition in self._drivers if definition not in today | set(in_use)}
        for definition in idle & self._idle:
            driver = self._drivers.pop(definition)
            self._known.pop(definition, None)
            if driver not in self._drivers.values():
                await driver.close()
        self._idle = idle - self._idle

    async def close(self) -> None:
        """Stop watching; containers stay."""
        for driver in self.drivers():
            await driver.close()

    def _take(self, table: HandlerTable) -> None:
        usable: dict[str, Handler] = {}
        invalid = dict(table.invalid)
        for handler in table.handlers.values():
            try:
                self._add((handler.name, handler.definition), handler)
            except Exception as error:  # of a package that is not ours
                log.exception("driver of a handler", extra={"handler": handler.name})
                reason = f"its driver cannot be made: {error!r}"
                invalid[handler.name] = InvalidHandler(
                    name=handler.name, reason=reason, source=handler.source
                )
                continue
            usable[handler.name] = handler
        self.table = replace(table, handlers=usable, invalid=invalid)

    def _add(self, key: Definition, handler: Handler) -> None:
        if key not in self._drivers:
            self._drivers[key] = self._make(handler)
        self._known[key] = handler
