"""What the machine has for handlers: those configured, and runc and crun where they are installed.

All are probed at the same time, each by its kind; what follows from what they say is decided in `table.py`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from config.loading import LoadedSettings
from config.models import HandlerSettings
from oci.bundle.template import BaseSpec
from oci.bundle.template import parse as parse_base_spec
from oci.errors import BadInput, CrispError, Internal, Unsupported
from shim.runtimes.kinds import Candidate, Kind, Machine
from shim.runtimes.table import PREFERRED, Handler, HandlerTable, InvalidHandler, assemble

log = logging.getLogger(__name__)

PROBE_TIMEOUT = 10.0  # seconds for one call; a loaded node needs one, a healthy one 20 ms
FOUND_ON_PATH = "found on PATH"
STARTED_WITH = "started with it"


async def probe_handlers(
    loaded: LoadedSettings, *, kinds: Mapping[str, Kind], machine: Machine
) -> HandlerTable:
    """The handler table of this machine. Never raises for a broken one: the table says what is wrong."""
    candidates = await asyncio.to_thread(_candidates, loaded, machine.path)
    entries = await asyncio.gather(*(probe(candidate, kinds, machine) for candidate in candidates))
    broken = [
        InvalidHandler(name=name, reason="; ".join(why), source=loaded.describe_origin("handlers", name))
        for name, why in loaded.broken_handlers.items()
    ]
    table = assemble(loaded, {entry.name: entry for entry in (*entries, *broken)})
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
    for invalid in table.invalid.values():
        log.warning(
            "handler cannot be used",
            extra={"handler": invalid.name, "reason": invalid.reason, "source": invalid.source},
        )
    log.info("default handler", extra={"handler": table.default, "source": table.default_source})
    return table


async def probe(
    candidate: Candidate, kinds: Mapping[str, Kind], machine: Machine
) -> Handler | InvalidHandler:
    """One handler, or why it cannot be used."""
    kind = kinds.get(candidate.settings.kind)
    try:
        if kind is None:
            reason = (
                f"handlers.{candidate.name}.kind: {candidate.settings.kind!r} is not known; known are"
                f" {', '.join(sorted(kinds))}"
            )
            return InvalidHandler(name=candidate.name, reason=reason, source=candidate.source)
        handler = await kind.probe(candidate, machine)
        base = await asyncio.to_thread(_base_spec, candidate)
    except CrispError as error:
        return InvalidHandler(name=candidate.name, reason=error.message, source=candidate.source)
    except Exception as error:  # somebody else's code must not keep the daemon from starting
        log.exception("probing a handler failed", extra={"handler": candidate.name})
        reason = f"probing it failed: {error!r}"
        return InvalidHandler(name=candidate.name, reason=reason, source=candidate.source)
    return replace(
        handler,
        plugin=dict(candidate.settings.plugin),
        source=candidate.source,
        definition=definition_of(candidate, handler),
        base=base,
    )


def _base_spec(candidate: Candidate) -> BaseSpec:
    """What the handler's containers are based on.

    Raises Unsupported for a file that cannot be used. A handler that pods were started with stays, since they
    must be stopped: only what is created with it meanwhile is refused.
    """
    path = candidate.settings.base_spec
    if path is None:
        return BaseSpec()
    try:
        return parse_base_spec(path.read_bytes(), source=str(path))
    except (OSError, BadInput) as error:
        words = error.message if isinstance(error, BadInput) else f"{path}: {error.strerror}"
        problem = f"handlers.{candidate.name}.base_spec: {words}"
        if candidate.source == STARTED_WITH:
            return BaseSpec(problem=problem)
        raise Unsupported(problem) from error


def definition_of(candidate: Candidate, handler: Handler) -> str:
    """What a pod's record keeps of its handler: enough to drive the pod when the table has changed."""
    return json.dumps(
        {
            "settings": candidate.settings.model_dump(mode="json", exclude_defaults=True),
            "root": str(candidate.root),
            "version": f"{handler.version.name} {handler.version.version}",
        },
        sort_keys=True,
    )


def candidate_of(name: str, definition: str) -> Candidate:
    """The handler of a record. Raises Internal for a text that is no definition.

    Settings that this release does not know, written by a later one, are left out.
    """
    try:
        document = json.loads(definition)
        known = {
            key: value for key, value in document["settings"].items() if key in HandlerSettings.model_fields
        }
        settings = HandlerSettings.model_validate(known)
        root = Path(document["root"])
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        raise Internal(f"handler {name}: what a pod's record keeps of it cannot be read: {error}") from error
    return Candidate(name=name, settings=settings, root=root, source=STARTED_WITH)


def _candidates(loaded: LoadedSettings, path: str) -> list[Candidate]:
    """Preferred ones first, so that adding another to the configuration never changes the default."""
    configured = loaded.settings.handlers
    found = []
    for name in (*PREFERRED, *(name for name in configured if name not in PREFERRED)):
        root = loaded.settings.handler_root(name)
        if name in loaded.broken_handlers:
            continue
        if name in configured:
            source = loaded.describe_origin("handlers", name)
            found.append(Candidate(name=name, settings=configured[name], root=root, source=source))
        elif shutil.which(name, path=path) is not None:
            found.append(Candidate(name=name, settings=HandlerSettings(), root=root, source=FOUND_ON_PATH))
    return found
