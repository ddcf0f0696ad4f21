"""Hooks of a container's life (runtime-spec config.md, "POSIX-platform Hooks"), from what devices bring."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from oci.cdi import Hook


def hooks(wanted: Iterable[Hook]) -> dict[str, list[dict[str, Any]]]:
    """The `hooks` member: by stage, in the order given."""
    made: dict[str, list[dict[str, Any]]] = {}
    for hook in wanted:
        one: dict[str, Any] = {"path": hook.path}
        if hook.args:
            one["args"] = list(hook.args)
        if hook.env:
            one["env"] = list(hook.env)
        if hook.timeout is not None:
            one["timeout"] = hook.timeout
        made.setdefault(hook.hookName, []).append(one)
    return made
