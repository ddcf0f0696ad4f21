"""The daemon's own log: one line a record on standard error, as text or as JSON.

Every record carries the fields it was given with `extra` and the call, pod and container it belongs to. The
journal adds time and host; text lines begin with the priority prefix of sd-daemon(3) when it reads them.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import Literal

from shim import logcontext

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def configure(level: str, form: Literal["text", "json"]) -> None:
    """Set up the root logger. `level` is a name of the standard library in lower case."""
    handler = logging.StreamHandler(sys.stderr)
    journal = "JOURNAL_STREAM" in os.environ
    handler.setFormatter(_Json() if form == "json" else _Text(journal=journal))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("asyncio", "grpc"):  # their debug records are about themselves
        logging.getLogger(noisy).setLevel(logging.INFO)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    given = {k: v for k, v in vars(record).items() if k not in _STANDARD and not k.startswith("_")}
    return logcontext.fields() | given


class _Text(logging.Formatter):
    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{key}={_quoted(value)}" for key, value in _fields(record).items())
        line = f"{record.levelname.lower():7} {record.getMessage()}" + (f" {fields}" if fields else "")
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        if self._journal:
            prefix = f"<{_PRIORITIES.get(record.levelno, 6)}>"
            return "\n".join(prefix + part for part in line.splitlines())
        return f"{_time(record)} {line}"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str)


def _time(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


def _quoted(value: object) -> str:
    text = str(value)
    plain = text and all(c.isprintable() and c not in ' "=' for c in text)
    return text if plain else json.dumps(text, ensure_ascii=False)
