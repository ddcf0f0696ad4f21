"""The handlers that pods can name: which are usable, which are not and why, and which is the default.

Decides from settings and what `probe.py` found out; looks at nothing itself. A broken handler disables only
itself: it stays in the table with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from config.loading import LoadedSettings
from oci.bundle.inputs import HandlerTraits
from oci.bundle.template import BaseSpec
from oci.errors import BadInput, Unsupported
from oci.features import ExecGroup, HandlerFeatures, RuntimeVersion
from oci.policy import Policy
from oci.quirks import Quirks

PREFERRED = ("runc", "crun")
"""Handlers that need no table in the configuration, in the order in which one becomes the default."""

NO_ROOT = Path()
"""Of handlers that keep their state elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """One usable runtime, as a driver needs it."""

    name: str
    kind: str  # "oci", "shim", or what a package added
    binary: Path
    root: Path = NO_ROOT  # the runtime's --root
    monitor: Path = Path()  # conmon; a shim is its own
    monitor_version: str = ""  # "2.1.6"
    version: RuntimeVersion
    features: HandlerFeatures
    quirks: Quirks = Quirks()
    options: tuple[str, ...] = ()  # before the verb
    create_options: tuple[str, ...] = ()  # after `create`
    annotations: tuple[str, ...] = ()  # globs of annotation keys that may reach the runtime
    privileged_without_host_devices: bool = False
    exec_group: ExecGroup = ExecGroup.NONE
    base: BaseSpec = BaseSpec()  # what its containers are based on
    plugin: Mapping[str, Any] = field(default_factory=dict)  # settings of a kind that a package added
    runtime_binary: Path | None = None  # what a shim runs, None for its default
    config_path: Path | None = None  # the runtime's own configuration
    source: str  # "FILE:LINE" of its table, or "found on PATH"
    definition: str = ""  # JSON: what pods keep of it, equal while it is the same handler

    @property
    def traits(self) -> HandlerTraits:
        """The part of it that shapes a container's configuration."""
        return HandlerTraits(
            name=self.name,
            recursive_read_only_mounts=self.features.recursive_read_only_mounts,
            user_namespaces=self.features.user_namespaces,
            idmapped_mounts=self.features.idmapped_mounts,
            seccomp=self.features.seccomp,
            apparmor=self.features.apparmor,
            selinux=self.features.selinux,
            annotations=self.annotations,
            privileged_without_host_devices=self.privileged_without_host_devices,
            base=self.base,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InvalidHandler:
    """A handler that cannot be used, and why."""

    name: str
    reason: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerTable:
    """All handlers, in order of preference. `default` is "" when there is no usable one."""

    handlers: Mapping[str, Handler] = field(default_factory=dict)
    invalid: Mapping[str, InvalidHandler] = field(default_factory=dict)
    default: str = ""
    default_source: str = ""  # why it is the default: "FILE:LINE" or "the first usable one"
    files: tuple[Path, ...] = ()  # configuration files that were read
    looked_for: tuple[Path, ...] = ()  # where configuration was looked for
    policy: Policy = Policy()  # for pods that name no handler

    def resolve(self, name: str) -> Handler:
        """The handler that a request names; "" is the default one.

        Raises BadInput for an unknown one, Unsupported for an invalid one, or when none is usable.
        """
        wanted = name or self.default
        handler = self.handlers.get(wanted)
        if handler is not None:
            return handler
        if not wanted:
            raise Unsupported(
                f"runtime_handler: no handler is usable: {self._why_none()}; {self._where()}; install runc or"
                " crun, and conmon"
            )
        which = f"handler {name!r}" if name else f"the default handler {wanted!r} ({self.default_source})"
        broken = self.invalid.get(wanted)
        if broken is not None:
            raise Unsupported(f"runtime_handler: {which} cannot be used: {broken.reason} ({broken.source})")
        raise BadInput(f"runtime_handler: {which} is not known; {self._known()}; {self._where()}")

    def _known(self) -> str:
        if not self.handlers and not self.invalid:
            return "no handler is known"
        names = [*self.handlers, *(f"{name} (cannot be used)" for name in self.invalid)]
        return f"known are {', '.join(names)}"

    def _why_none(self) -> str:
        if not self.invalid:
            return f"none of {', '.join(PREFERRED)} was found on PATH"
        return "; ".join(f"{broken.name}: {broken.reason}" for broken in self.invalid.values())

    def _where(self) -> str:
        if self.files:
            return f"configuration was read from {', '.join(map(str, self.files))}"
        return f"no configuration was found at {' or '.join(map(str, self.looked_for)) or 'any place'}"


def assemble(loaded: LoadedSettings, found: Mapping[str, Handler | InvalidHandler]) -> HandlerTable:
    """Put probed handlers, in order of preference, into a table with its default."""
    handlers: dict[str, Handler] = {}
    invalid: dict[str, InvalidHandler] = {}
    for name, entry in found.items():
        if isinstance(entry, InvalidHandler):
            invalid[name] = entry
            continue
        clash = next((other for other in handlers.values() if _would_mix(entry, other)), None)
        if clash is None:
            handlers[name] = entry
        else:
            reason = f"its root {entry.root} is that of handler {clash.name}, which is another program"
            invalid[name] = InvalidHandler(name=name, reason=reason, source=entry.source)
    configured = loaded.settings.default_handler
    if configured is not None:
        default, source = configured, f"default_handler in {loaded.describe_origin('default_handler')}"
    else:
        default = next(iter(handlers), "")
        source = "the first usable one" if default else ""
    return HandlerTable(
        handlers=handlers,
        invalid=invalid,
        default=default,
        default_source=source,
        files=loaded.files,
        looked_for=loaded.looked_for,
        policy=Policy(
            host=loaded.settings.handler_policy.host or "",
            untrusted=loaded.settings.handler_policy.untrusted or "",
        ),
    )


def _would_mix(one: Handler, other: Handler) -> bool:
    """Two programs would read each other's state."""
    return one.root == other.root != NO_ROOT and one.binary != other.binary
