"""The kind "shim": a containerd shim (version 2), and the log process that is shared by all of them."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

from oci.errors import BadInput, Unsupported
from oci.features import HandlerFeatures, RuntimeVersion, assumed_features, parse_features, parse_version
from oci.quirks import Quirks, corrected, quirks_of
from shim import process
from shim.logger.keeper import LogKeeper
from shim.runtimes import programs
from shim.runtimes.driver import Driver
from shim.runtimes.kinds import INTERFACE, Candidate, DriverContext, Machine
from shim.runtimes.shimv2 import configuration
from shim.runtimes.shimv2.bootstrap import parse_version as parse_shim_version
from shim.runtimes.shimv2.driver import ShimDriver
from shim.runtimes.shimv2.families import Family, family_of, program_of
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
        family = family_of(binary.name)
        below, root = await asyncio.to_thread(_runtime_below, candidate, family, machine.path)
        quirks = Quirks()
        if below is not None and not family.host_processes:  # else what differs is the shim's affair
            quirks = quirks_of(await _version(below, machine))
        features = HandlerFeatures() if below is None else corrected(await _features(below, machine), quirks)
        printed = await process.run([binary, "-v"], timeout=machine.limit)
        version = parse_shim_version((printed.stdout + printed.stderr).decode(errors="replace"))
        return Handler(
            name=name,
            kind=settings.kind,
            binary=binary,
            root=root,
            version=RuntimeVersion(name=binary.name, version=version),
            features=replace(features, checkpoint=False),  # a shim's checkpoint is not driven here
            quirks=quirks,
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


def _runtime_below(candidate: Candidate, family: Family, path: str) -> tuple[Path | None, Path]:
    """The OCI runtime that the shim runs, None where it runs none or nobody knows which, and its root."""
    settings, key = candidate.settings, f"handlers.{candidate.name}.runtime_binary"
    if family.configured and settings.config_path is not None:
        if settings.runtime_binary is not None:
            raise Unsupported(f"{key}: with config_path that file's binary_name says it")
        told = _told(settings.config_path, key=f"handlers.{candidate.name}.config_path")
        named = Path(told.program) if told.program.startswith("/") else None
        where = f"binary_name in {settings.config_path}"
        return programs.find(named, told.program, path, key=where), told.root
    if settings.runtime_binary is None and not family.runtime:
        return None, candidate.root
    return programs.find(settings.runtime_binary, family.runtime, path, key=key), candidate.root


def _told(path: Path, *, key: str) -> configuration.Named:
    try:
        return configuration.named(path, path.read_text())
    except OSError as error:
        raise Unsupported(f"{key}: {path}: {error.strerror}") from error
    except (BadInput, UnicodeDecodeError) as error:
        raise Unsupported(f"{key}: {error}") from error


async def _version(binary: Path, machine: Machine) -> RuntimeVersion:
    result = await process.run([binary, "--version"], timeout=machine.limit)
    try:
        return parse_version(result.stdout.decode(errors="replace"))
    except BadInput as error:
        raise Unsupported(f"{binary}: {error.message}") from error


async def _features(binary: Path, machine: Machine) -> HandlerFeatures:
    """A runtime without `features` has what its version text says, else the defaults."""
    try:
        result = await process.run([binary, "features"], timeout=machine.limit)
        return parse_features(result.stdout, kernel=machine.kernel)
    except (process.CommandFailed, BadInput) as error:
        log.debug("runtime tells no features", extra={"binary": str(binary), "reason": error.message})
    return assumed_features(await _version(binary, machine))
