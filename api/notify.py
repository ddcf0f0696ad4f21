"""systemd's notification protocol (sd_notify(3)): READY, STOPPING, the watchdog; silent without systemd."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping

log = logging.getLogger(__name__)


class Notifier:
    """Speaks to `NOTIFY_SOCKET` of the environment; silent where it is not set."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._watchdog = int(environment.get("WATCHDOG_USEC", "0")) / 1e6  # seconds, 0 is none
        for_us = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._task: asyncio.Task[None] | None = None
        if not for_us:
            self._watchdog = 0.0

    def ready(self) -> None:
        """Say that calls are served, and begin to answer the watchdog from the event loop."""
        self._send("READY=1\nSTATUS=serving")
        if self._watchdog:
            self._task = asyncio.create_task(self._keep_alive(), name="watchdog")

    def stopping(self) -> None:
        """Say that the daemon stops."""
        self._send("STOPPING=1\nSTATUS=stopping")

    async def close(self) -> None:
        """End the watchdog's task."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _keep_alive(self) -> None:
        # A third of the limit, so that one late turn of the loop is no reason to be killed.
        while True:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self._watchdog / 3)

    def _send(self, text: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as peer:
                peer.sendto(text.encode(), address)
        except OSError as error:
            log.warning("systemd was not told", extra={"what": text.splitlines()[0], "error": str(error)})
