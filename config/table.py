"""What every table of settings is: frozen, strict, without unknown keys; and how its rules are broken."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

BETWEEN_KEYS = "between_keys"
"""The error type of rules over several keys, which may be spread over files: judged after merging."""


def between_keys(key: str, message: str) -> PydanticCustomError:
    """A rule over several keys is broken; `key` is the one of this table to look at, or
    "table.key" below it."""
    return PydanticCustomError(BETWEEN_KEYS, "{message}", {"key": key, "message": message})


class Table(BaseModel):
    """A TOML table. Its docstring introduces it in the reference."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=False)
