"""The kind "shim": a containerd shim (version 2), and the log process that is shared by all of them."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

from oci.errors import BadInput, Unsupported
from oci.features import HandlerFeatures, RuntimeVersion, assumed_features, parse_features, parse_version
from shim import process
from shim.logger.keeper import LogKeeper
from shim.runtimes import programs
from shim.runtimes.driver import Driver
from shim.runtimes.kinds import INTERFACE, Candidate, DriverContext, Machine
from shim.runtimes.shimv2.bootstrap import parse_version as parse_shim_version
from shim.runtimes.shimv2.driver import ShimDriver
from shim.runtimes.shimv2.families import family_of, program_of
from shim.runtimes.table import Handler

log = logging.getLogger(__name__)


class ShimKind:
    """See `shim.runtimes.kinds.Kind`. `keeper` is closed by whoever made it, after the drivers."""

    interface = INTERFACE

    def __init__(self, keeper: LogKeeper) -> None:
        self._keeper = keeper

    async def probe(self, candidate: Candidate, machine: Machine) -> Handler:
        """Ask the shim for its version, and the runtime below it for what it can do."""
        name, settings = candidate.name, candidate.settings
        candidate.refuse("options", "create_options", "monitor")
        wanted = program_of(settings.runtime_type) if settings.runtime_type is not None else name
        binary = await asyncio.to_thread(
            programs.find, settings.binary, wanted, machine.path, key=f"handlers.{name}.binary"
        )
        below = await asyncio.to_thread(_runtime_below, candidate, binary, machine.path)
        printed = await process.run([binary, "-v"], timeout=machine.limit)
        version = parse_shim_version((printed.stdout + printed.stderr).decode(errors="replace"))
        return Handler(
            name=name,
            kind=settings.kind,
            binary=binary,
            root=candidate.root,
            version=RuntimeVersion(name=binary.name, version=version),
            # a shim's checkpoint is not driven here
            features=replace(
                HandlerFeatures() if below is None else await _features(below, machine), checkpoint=False
            ),
            annotations=settings.annotations,
            privileged_without_host_devices=settings.privileged_without_host_devices,
            runtime_binary=below,
            config_path=settings.config_path,
            source=candidate.source,
        )

    def driver(self, handler: Handler, context: DriverContext) -> Driver:
        return ShimDriver(
            handler,
            run_dir=context.run_dir,
            keeper=self._keeper,
            exits=context.exits,
            hierarchies=context.hierarchies,
            systemd=context.systemd,
            monitors=context.monitors,
            timeout=context.timeout,
            kill_time=context.kill_time,
            exec_drain=context.exec_drain,
        )


def _runtime_below(candidate: Candidate, binary: Path, path: str) -> Path | None:
    """The OCI runtime that the shim runs, None where it runs none or nobody knows which."""
    settings, family = candidate.settings, family_of(binary.name)
    if settings.runtime_binary is None and not family.runtime:
        return None
    key = f"handlers.{candidate.name}.runtime_binary"
    return programs.find(settings.runtime_binary, family.runtime, path, key=key)


async def _features(binary: Path, machine: Machine) -> HandlerFeatures:
    """A runtime without `features` has what its version text says, else the defaults."""
    try:
        result = await process.run([binary, "features"], timeout=machine.limit)
        return parse_features(result.stdout, kernel=machine.kernel)
    except (process.CommandFailed, BadInput) as error:
        log.debug("runtime tells no features", extra={"binary": str(binary), "reason": error.message})
    try:
        result = await process.run([binary, "--version"], timeout=machine.limit)
        return assumed_features(parse_version(result.stdout.decode(errors="replace")))
    except BadInput as error:
        raise Unsupported(f"{binary}: {error.message}") from error
