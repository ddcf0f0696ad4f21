"""The kind "oci": a runtime with an OCI command line, and conmon."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from oci.errors import BadInput, CrispError, Unsupported
from oci.features import (
    ExecGroup,
    HandlerFeatures,
    RuntimeVersion,
    assumed_features,
    parse_exec_help,
    parse_features,
    parse_version,
)
from oci.quirks import Quirks, corrected, quirks_of, refused_options
from shim import process
from shim.runtimes import programs
from shim.runtimes.driver import Driver
from shim.runtimes.inside import InsideDriver
from shim.runtimes.kinds import INTERFACE, Candidate, DriverContext, Machine
from shim.runtimes.oci import OciDriver
from shim.runtimes.table import Handler
from shim.runtimes.waited import WaitedDriver

log = logging.getLogger(__name__)

MONITOR = "conmon"


class OciKind:
    """See `shim.runtimes.kinds.Kind`."""

    interface = INTERFACE

    async def probe(self, candidate: Candidate, machine: Machine) -> Handler:
        """Ask program and monitor for their versions and features, all at the same time."""
        name, settings = candidate.name, candidate.settings
        candidate.refuse("runtime_type", "runtime_binary", "config_path")
        binary, monitor = await asyncio.to_thread(_programs, candidate, machine.path)
        try:
            async with asyncio.TaskGroup() as calls:
                version_call = calls.create_task(_version(binary, machine.limit))
                features_call = calls.create_task(_features(binary, machine))
                monitor_call = calls.create_task(_version(monitor, machine.limit))
                group_call = calls.create_task(_exec_group(binary, machine.limit))
        except ExceptionGroup as group:
            broken, others = group.split(CrispError)
            if others is not None or broken is None:
                raise
            raise Unsupported("; ".join(str(error) for error in broken.exceptions)) from group
        version = version_call.result()
        quirks = quirks_of(version)
        if refused := refused_options(quirks, settings.create_options):
            raise Unsupported(f"handlers.{name}.create_options: {version.name} has no {', '.join(refused)}")
        return Handler(
            name=name,
            kind=settings.kind,
            binary=binary,
            root=candidate.root,
            monitor=monitor,
            monitor_version=monitor_call.result().version,
            version=version,
            features=corrected(features_call.result() or assumed_features(version), quirks),
            quirks=quirks,
            options=(*quirks.options, *settings.options),
            create_options=settings.create_options,
            annotations=settings.annotations,
            privileged_without_host_devices=settings.privileged_without_host_devices,
            exec_group=group_call.result(),
            source=candidate.source,
        )

    def driver(self, handler: Handler, context: DriverContext) -> Driver:
        return driver_type(handler.quirks)(
            handler,
            run_dir=context.run_dir,
            exits=context.exits,
            hierarchies=context.hierarchies,
            systemd=context.systemd,
            monitors=context.monitors,
            timeout=context.timeout,
            kill_time=context.kill_time,
            exec_drain=context.exec_drain,
        )


def driver_type(quirks: Quirks) -> type[OciDriver]:
    """What drives a runtime of these ways."""
    if quirks.supervise == "wait":
        return WaitedDriver
    return InsideDriver if quirks.inside else OciDriver


def _programs(candidate: Candidate, path: str) -> tuple[Path, Path]:
    settings, table = candidate.settings, f"handlers.{candidate.name}"
    return (
        programs.find(settings.binary, candidate.name, path, key=f"{table}.binary"),
        programs.find(settings.monitor, MONITOR, path, key=f"{table}.monitor"),
    )


async def _version(binary: Path, limit: float) -> RuntimeVersion:
    result = await process.run([binary, "--version"], timeout=limit)
    try:
        return parse_version(result.stdout.decode(errors="replace"))
    except BadInput as error:
        raise Unsupported(f"{binary}: {error.message}") from error


async def _features(binary: Path, machine: Machine) -> HandlerFeatures | None:
    """None where the runtime has no `features`, as runc before 1.1 and crun before 1.8.6.

    A hanging or missing binary is an error; a failing verb is not, since old ones differ in how they refuse.
    """
    try:
        result = await process.run([binary, "features"], timeout=machine.limit)
        return parse_features(result.stdout, kernel=machine.kernel)
    except (process.CommandFailed, BadInput) as error:
        log.debug("runtime tells no features", extra={"binary": str(binary), "reason": error.message})
        return None


async def _exec_group(binary: Path, limit: float) -> ExecGroup:
    """NONE also where the runtime does not help."""
    try:
        result = await process.run([binary, "exec", "--help"], timeout=limit)
    except process.CommandFailed as error:
        log.debug("runtime tells nothing of exec", extra={"binary": str(binary), "reason": error.message})
        return ExecGroup.NONE
    return parse_exec_help(result.stdout.decode(errors="replace"))
