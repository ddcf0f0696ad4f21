"""Taking over changed handlers while the daemon runs: at SIGHUP, and when a configuration file changes.

Handlers, their policy and the default are taken over; any other changed setting is named in the log and waits
for the next start. A configuration with a mistake outside of the handlers changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress

from config.loading import ConfigError, LoadedSettings
from oci.errors import Full
from shim.kernel.inotify import DirectoryWatch
from shim.node import Node
from shim.runtimes.handlers import Handlers
from shim.runtimes.kinds import Kind, Machine
from shim.runtimes.probe import probe_handlers

log = logging.getLogger(__name__)

LIVE = ("handlers", "handler_policy", "default_handler")
"""The settings that are taken over."""


class Reloads:
    """`load` reads the files again; `loaded` is what is in force, and changes with every `reload`."""

    def __init__(
        self,
        node: Node,
        handlers: Handlers,
        loaded: LoadedSettings,
        *,
        load: Callable[[], LoadedSettings],
        kinds: Mapping[str, Kind],
        machine: Machine,
    ) -> None:
        self._node = node
        self._handlers = handlers
        self._load = load
        self._kinds = kinds
        self._machine = machine
        self._turn = asyncio.Lock()
        self._wanted = asyncio.Event()
        self._anew = False
        self._read = loaded
        self._watches: list[DirectoryWatch] = []
        self._task: asyncio.Task[None] | None = None
        self.loaded = loaded

    def start(self) -> None:
        """Watch the files' directories, and reload when something in them changes."""
        self._task = asyncio.get_running_loop().create_task(self._serve(), name="reload")
        for directory in {path if path.suffix != ".toml" else path.parent for path in self.loaded.looked_for}:
            try:
                self._watches.append(DirectoryWatch(directory, self._wanted.set))
            except Full as error:
                log.warning("configuration is read again only at SIGHUP", extra={"error": error.message})

    def soon(self) -> None:
        """Reload when there is time and probe every runtime anew; several wishes become one."""
        self._anew = True
        self._wanted.set()

    async def close(self) -> None:
        for watch in self._watches:
            watch.close()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def reload(self, *, anew: bool) -> None:
        """Read the files and take over what changed. Mistakes are logged, and then nothing changes.

        Unless `anew`, files that say what they said before are no reason to probe.
        """
        async with self._turn:
            try:
                read = await asyncio.to_thread(self._load)
            except ConfigError as error:
                log.error(
                    "configuration is not taken over", extra={"error": "; ".join(str(error).splitlines())}
                )
                return
            if read == self._read and not anew:
                return
            self._read = read
            waiting = _differences(self.loaded, read)
            if waiting:
                log.warning("settings that wait for the next start", extra={"keys": ", ".join(waiting)})
            merged = _merged(self.loaded, read)
            table = await probe_handlers(merged, kinds=self._kinds, machine=self._machine)
            in_use = [(pod.handler, pod.definition) for pod in self._node.store.pods.values()]
            await self._handlers.take(table, in_use)
            await self._handlers.revive(in_use)
            self.loaded = merged
            log.info(
                "handlers are taken over",
                extra={"usable": ", ".join(table.handlers), "broken": ", ".join(table.invalid)},
            )

    async def _serve(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            anew, self._anew = self._anew, False
            try:
                await self.reload(anew=anew)
            except Exception:
                log.exception("reloading failed")


def _differences(old: LoadedSettings, new: LoadedSettings) -> list[str]:
    return [
        name
        for name in type(old.settings).model_fields
        if name not in LIVE and getattr(old.settings, name) != getattr(new.settings, name)
    ]


def _merged(old: LoadedSettings, new: LoadedSettings) -> LoadedSettings:
    """What is in force then: the new handlers, everything else as it was."""
    live = {name: getattr(new.settings, name) for name in LIVE}
    origins = {path: origin for path, origin in old.origins.items() if path[0] not in LIVE}
    origins |= {path: origin for path, origin in new.origins.items() if path[0] in LIVE}
    return LoadedSettings(
        settings=old.settings.model_copy(update=live),
        origins=origins,
        files=new.files,
        looked_for=new.looked_for,
        broken_handlers=new.broken_handlers,
    )
