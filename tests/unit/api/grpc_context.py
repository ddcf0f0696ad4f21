"""What a grpc.aio handler is given, as far as the door uses it."""

from __future__ import annotations

from typing import NoReturn

import grpc


class Aborted(Exception):
    """As grpc.aio's AbortError, which also is an Exception."""


class Context:
    def __init__(self) -> None:
        self.sent: list[object] = []
        self.aborted: tuple[grpc.StatusCode, str] | None = None

    async def send_initial_metadata(self, metadata: tuple[tuple[str, str], ...]) -> None:
        assert metadata == ()

    async def write(self, message: object) -> None:
        self.sent.append(message)

    async def abort(self, code: grpc.StatusCode, message: str) -> NoReturn:
        self.aborted = (code, message)
        raise Aborted
