"""One call of the command: the daemon's sockets, connected to when they are first needed.

Owns the words for a daemon that is not there. gRPC is loaded here, late: help and offline work never need it.
"""

from __future__ import annotations

import errno
import functools
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import places
from cli.inventory import RUN, Inventory, from_wire
from oci.errors import BadInput, Busy, CrispError, Internal, Unsupported

if TYPE_CHECKING:
    from api.client import Client
    from api.proto import admin_pb2, admin_pb2_grpc
    from cli.places import Options, Places

Connector = Callable[[Path], "Client"]

READ_TIMEOUT = 15.0
"""Seconds for calls that the daemon answers from memory: a longer silence is a fault worth telling."""

_CONNECT_TIMEOUT = 5.0


class Session:
    """`options` say where the daemon is; `connector` makes the client of a socket (tests give their own)."""

    def __init__(self, options: Options, *, connector: Connector | None = None) -> None:
        self.options = options
        self._connector = connector or connect
        self._clients: dict[Path, Client] = {}

    def now(self) -> int:
        """ns since the Unix epoch."""
        return time.time_ns()

    @functools.cached_property
    def places(self) -> Places:
        """Raises BadInput for a configuration that cannot be read."""
        return places.find(self.options)

    @property
    def admin(self) -> admin_pb2_grpc.AdminStub:
        """The admin service. Raises Busy when nobody answers, saying what to do."""
        socket_path = self.places.admin_socket
        try:
            return self._client(socket_path).admin
        except Busy as error:
            raise Busy(f"{error} ({_origin(self.places)})\n{START_HINT}") from error

    @functools.cached_property
    def daemon(self) -> admin_pb2.DaemonResponse:
        """Which daemon this is, its sockets and directories."""
        admin = self.admin  # first: a daemon that is not there is told without loading anything
        from api.proto import admin_pb2

        return admin.Daemon(admin_pb2.DaemonRequest(), timeout=READ_TIMEOUT)

    def realm(self, name: str) -> Client:
        """A client of the realm's container runtime interface."""
        for realm in self.daemon.realms:
            if realm.name == name and realm.sockets:
                return self._client(Path(realm.sockets[0]))
        known = ", ".join(realm.name for realm in self.daemon.realms)
        raise Unsupported(f"this daemon serves no realm {name!r}, only {known or 'none'}")

    @property
    def logs_of_run(self) -> Path:
        """Where the daemon lets pods of `crisp run` log."""
        return Path(self.daemon.state_directory) / "logs"

    @property
    def any_realm(self) -> Client:
        """For what all realms share: images."""
        return self.realm(RUN)

    def inventory(self, realm: str = "") -> Inventory:
        """All pods and containers as they are now."""
        admin = self.admin
        from api.proto import admin_pb2

        return from_wire(admin.Objects(admin_pb2.ObjectsRequest(realm=realm), timeout=READ_TIMEOUT))

    def another(self) -> Session:
        """With connections of its own, for a thread of its own."""
        return Session(self.options, connector=self._connector)

    def forget(self) -> None:
        """End all connections; the next call makes new ones, as after a restart of the daemon."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        self.__dict__.pop("daemon", None)

    def _client(self, path: Path) -> Client:
        if path not in self._clients:
            self._clients[path] = self._connector(path)
        return self._clients[path]


START_HINT = (
    "start the daemon with `systemctl start crispd`, or by hand with `crispd`; its log says why it ended"
)


def connect(path: Path) -> Client:
    """A client of the socket, if somebody listens. Raises Busy, or Internal without permission."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
            probe.settimeout(_CONNECT_TIMEOUT)
            probe.connect(str(path))
    except OSError as error:
        raise _refusal(path, error) from None
    # Set before gRPC is loaded: its own log lines are for its developers.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from api.client import connect as connect_client

    return connect_client(path)


def _refusal(path: Path, error: OSError) -> CrispError:
    if error.errno is None:  # "AF_UNIX path too long"
        return BadInput(f"socket {path}: the path is longer than the 107 bytes that a socket can have")
    if isinstance(error, PermissionError):
        return Internal(f"socket {path}: permission denied; only root may use it, try `sudo crisp`")
    if isinstance(error, TimeoutError) or error.errno == errno.EAGAIN:
        return Busy(f"socket {path}: somebody listens there but takes no connection")
    if isinstance(error, FileNotFoundError):
        return Busy(f"socket {path} does not exist: crispd is not running")
    if isinstance(error, ConnectionRefusedError) and not path.is_socket():
        return BadInput(f"{path} is not a socket")
    if isinstance(error, ConnectionRefusedError):
        return Busy(f"socket {path}: nobody answers, crispd ended without removing it")
    return Busy(f"socket {path}: {error.strerror or error} (errno {error.errno})")


def _origin(chosen: Places) -> str:
    return f"from {chosen.chosen}"


def json_text(text: str) -> Any:
    """JSON that the daemon sent; None for an empty one."""
    import json

    return json.loads(text) if text else None
