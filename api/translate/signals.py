"""CRI's Signal enum and the names that signal(7) uses."""

from __future__ import annotations

import signal

from api.proto import cri_pb2
from oci.errors import BadInput


def to_name(number: int, path: str) -> str:
    """ "SIGTERM", "SIGRTMIN+3"; "" for SIGNAL_RUNTIME_DEFAULT. Raises BadInput for a number of no signal."""
    if number not in cri_pb2.Signal.values():
        raise BadInput(f"{path}: {number} is not a signal of the interface")
    if number == cri_pb2.SIGNAL_RUNTIME_DEFAULT:
        return ""
    wire = cri_pb2.Signal.Name(cri_pb2.Signal.ValueType(number)).removeprefix("SIGNAL_")
    return wire.replace("PLUS", "+").replace("MINUS", "-")


_BY_NAME = {to_name(number, ""): number for number in cri_pb2.Signal.values()}


def to_wire(name: str) -> cri_pb2.Signal.ValueType:
    """The enum's value for the effective stop signal of a record; kubelet must never see RUNTIME_DEFAULT."""
    wanted = name.upper()
    if wanted.isdecimal():
        try:
            wanted = signal.Signals(int(wanted)).name
        except ValueError:
            wanted = ""
    if wanted and not wanted.startswith("SIG"):
        wanted = f"SIG{wanted}"
    number = _BY_NAME.get(wanted, 0) or cri_pb2.SIGNAL_SIGTERM
    return cri_pb2.Signal.ValueType(number)
