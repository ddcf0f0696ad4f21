"""Handlers as the life cycle asks for them: the table's entry and the driver made for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from oci.bundle.inputs import HandlerTraits
from shim.runtimes.driver import Driver
from shim.runtimes.table import HandlerTable


class Handlers:
    """`drivers` has one for each usable handler of `table`."""

    def __init__(self, table: HandlerTable, drivers: Mapping[str, Driver]) -> None:
        self.table = table
        self._drivers = drivers

    def driver(self, name: str) -> Driver:
        """The driver of a handler, "" for the default. Raises as `HandlerTable.resolve`."""
        return self._drivers[self.table.resolve(name).name]

    def drivers(self) -> Iterable[Driver]:
        """One for each usable handler."""
        return self._drivers.values()

    def traits(self, name: str) -> HandlerTraits:
        """What that handler can do and what its table entry allows."""
        return self.table.resolve(name).traits

    async def close(self) -> None:
        """Stop watching; containers stay."""
        for driver in self._drivers.values():
            await driver.close()
