"""What the machine has for handlers: binaries on PATH, their versions and features.

Runs `--version` and `features` of every runtime at the same time, each within a limit. Facts about runtimes
are read by `oci/features.py`; what follows from them is decided in `table.py`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from config.loading import LoadedSettings
from config.models import HandlerSettings
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
from shim import process
from shim.runtimes.table import PREFERRED, Handler, HandlerTable, InvalidHandler, assemble

log = logging.getLogger(__name__)

PROBE_TIMEOUT = 10.0  # seconds for one call; a loaded node needs one, a healthy one 20 ms
MONITOR = "conmon"
FOUND_ON_PATH = "found on PATH"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    name: str
    settings: HandlerSettings
    source: str


async def probe_handlers(
    loaded: LoadedSettings,
    *,
    kernel: tuple[int, ...],
    path: str | None = None,
    timeout: float = PROBE_TIMEOUT,  # noqa: ASYNC109 - of each call, not of this one
) -> HandlerTable:
    """The handler table of this machine: those configured, and runc and crun where `path` has them.

    `kernel` is the running kernel's version; `path` the directories to search, as in PATH (None: the
    daemon's own and the system's); `timeout` the limit in seconds of one call of a runtime. Never raises for
    a broken one: the table says what is wrong.
    """
    if path is None:
        path = search_path(os.environ)
    candidates = await asyncio.to_thread(_candidates, loaded, path)
    entries = await asyncio.gather(
        *(_probe(candidate, loaded, kernel=kernel, path=path, limit=timeout) for candidate in candidates)
    )
    table = assemble(loaded, {entry.name: entry for entry in entries})
    for handler in table.handlers.values():
        log.info(
            "handler is usable",
            extra={
                "handler": handler.name,
                "binary": str(handler.binary),
                "version": handler.version.version,
                "source": handler.source,
            },
        )
    for broken in table.invalid.values():
        log.warning(
            "handler cannot be used",
            extra={"handler": broken.name, "reason": broken.reason, "source": broken.source},
        )
    log.info("default handler", extra={"handler": table.default, "source": table.default_source})
    return table


def search_path(environment: Mapping[str, str]) -> str:
    """The daemon's own PATH, followed by the directories that a service's PATH often lacks."""
    own = environment.get("PATH", "").split(":")
    return ":".join(dict.fromkeys(entry for entry in (*own, *process.PATH.split(":")) if entry[:1] == "/"))


def _candidates(loaded: LoadedSettings, path: str) -> list[_Candidate]:
    """Preferred ones first, so that adding another to the configuration never changes the default."""
    configured = loaded.settings.handlers
    found = []
    for name in (*PREFERRED, *(name for name in configured if name not in PREFERRED)):
        if name in configured:
            source = loaded.describe_origin("handlers", name)
            found.append(_Candidate(name=name, settings=configured[name], source=source))
        elif shutil.which(name, path=path) is not None:
            found.append(_Candidate(name=name, settings=HandlerSettings(), source=FOUND_ON_PATH))
    return found


async def _probe(
    candidate: _Candidate, loaded: LoadedSettings, *, kernel: tuple[int, ...], path: str, limit: float
) -> Handler | InvalidHandler:
    name, settings = candidate.name, candidate.settings
    try:
        binary, monitor = await asyncio.to_thread(_programs, candidate, path)
        async with asyncio.TaskGroup() as calls:
            version_call = calls.create_task(_version(binary, limit))
            features_call = calls.create_task(_features(binary, kernel, limit))
            monitor_call = calls.create_task(_version(monitor, limit))
            group_call = calls.create_task(_exec_group(binary, limit))
    except CrispError as error:
        return InvalidHandler(name=name, reason=error.message, source=candidate.source)
    except ExceptionGroup as group:
        broken, others = group.split(CrispError)
        if others is not None or broken is None:
            raise
        reason = "; ".join(str(error) for error in broken.exceptions)
        return InvalidHandler(name=name, reason=reason, source=candidate.source)
    version = version_call.result()
    return Handler(
        name=name,
        kind=settings.kind,
        binary=binary,
        root=loaded.settings.handler_root(name),
        monitor=monitor,
        monitor_version=monitor_call.result().version,
        version=version,
        features=features_call.result() or assumed_features(version),
        options=settings.options,
        create_options=settings.create_options,
        annotations=settings.annotations,
        privileged_without_host_devices=settings.privileged_without_host_devices,
        exec_group=group_call.result(),
        source=candidate.source,
    )


def _programs(candidate: _Candidate, path: str) -> tuple[Path, Path]:
    settings, table = candidate.settings, f"handlers.{candidate.name}"
    return (
        _program(settings.binary, candidate.name, path, key=f"{table}.binary"),
        _program(settings.monitor, MONITOR, path, key=f"{table}.monitor"),
    )


def _program(configured: Path | None, name: str, path: str, *, key: str) -> Path:
    """An executable file, as configured or found. Raises Unsupported that names the key to set."""
    if configured is None:
        found = shutil.which(name, path=path)
        if found is None:
            raise Unsupported(f"{name} is not on PATH ({path}): install it or set {key}")
        return Path(found)
    if not configured.is_file():
        what = "is not a regular file" if configured.exists() else "does not exist"
        raise Unsupported(f"{key}: {configured} {what}")
    if not os.access(configured, os.X_OK):
        raise Unsupported(f"{key}: {configured} is not executable")
    return configured


async def _version(binary: Path, limit: float) -> RuntimeVersion:
    result = await process.run([binary, "--version"], timeout=limit)
    try:
        return parse_version(result.stdout.decode(errors="replace"))
    except BadInput as error:
        raise Unsupported(f"{binary}: {error.message}") from error


async def _features(binary: Path, kernel: tuple[int, ...], limit: float) -> HandlerFeatures | None:
    """None where the runtime has no `features`, as runc before 1.1 and crun before 1.8.6.

    A hanging or missing binary is an error; a failing verb is not, since old ones differ in how they refuse.
    """
    try:
        result = await process.run([binary, "features"], timeout=limit)
        return parse_features(result.stdout, kernel=kernel)
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
