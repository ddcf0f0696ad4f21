"""Spares commands the validation library where a value needs no validation.

Typer builds a pydantic validator for every parameter of the command that is called; loading and building them
takes longer than `crisp ps` takes in all. Here a value that already has the type of its parameter is taken as
it is, and only the others go the usual way. A Typer that works otherwise is left as it is, and is slower.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any


def spare(command: Any) -> None:
    """Treat every parameter of a command, and of the commands below it, in this way."""
    parameters_of = command.get_params

    def parameters(context: Any) -> Any:
        found = parameters_of(context)
        for one in found:
            # Typer makes the option --help only now.
            if getattr(one, "_runtime_param", 0) is None and hasattr(one, "get_runtime_param"):
                one._runtime_param = _Taken(one)
        return found

    command.get_params = parameters
    for inner in getattr(command, "commands", {}).values():
        spare(inner)


class _Taken:
    """Stands in for Typer's own coercion of one parameter, and asks that when it must."""

    def __init__(self, parameter: Any) -> None:
        self._parameter = parameter
        self._annotation = parameter.type_descriptor.annotation

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        wanted = self._annotation
        single = param.nargs == 1 and not param.multiple
        if type(value) is wanted or (value is None and single):
            return value
        if wanted == list[str] and isinstance(value, list | tuple):
            if all(type(item) is str for item in value):
                return list(value)
        elif isinstance(wanted, type) and issubclass(wanted, StrEnum) and value in set(wanted):
            return wanted(value)
        self._parameter._runtime_param = None
        return self._parameter.get_runtime_param().coerce(value, param=param, ctx=ctx)
