"""What a shim's refusals mean, and the options that its Create takes. Pure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from google.protobuf.message import Message

from oci import commandline
from oci.commandline import Runtime
from oci.errors import Absent, CrispError, Deadline, RuntimeFailed, WrongState
from shim.runtimes.shimv2.families import Family, OptionsKind
from shim.runtimes.shimv2.proto import runc_options_pb2, runtime_options_pb2
from shim.runtimes.shimv2.ttrpc.client import ConnectionLost
from shim.runtimes.table import Handler

_WRONG_STATE: Final = re.compile(  # containerd-shim-runc-v2, process/*_state.go
    r"cannot \w+ (?:in )?an? \w+ (?:process|container|state)|process already finished|process not running"
)


def explain(runtime: Runtime, container: str, verb: str, error: CrispError) -> CrispError:
    """What the shim's refusal means, by the words of the runtime in it."""
    if isinstance(error, Deadline | RuntimeFailed):
        return error
    if isinstance(error, ConnectionLost):
        return RuntimeFailed(
            f"handler {runtime.handler}: {verb} of container {container}: {error.message}", verb=verb
        )
    meant = commandline.failure(runtime, container, verb, error.message, status=None)
    if isinstance(meant, RuntimeFailed) and not meant.program_missing:
        if isinstance(error, Absent) and verb != "create":
            return Absent(meant.message)
        if isinstance(error, WrongState) or _WRONG_STATE.search(error.message):
            return WrongState(meant.message)
    return meant


def create_options(
    handler: Handler, family: Family, *, systemd: bool, configuration: Path | None = None
) -> Message | None:
    """What Create is given, as the shim's family takes it; `configuration` is the file that Crisp wrote."""
    if family.options is OptionsKind.RUNC:
        return runc_options_pb2.Options(
            binary_name="" if handler.runtime_binary is None else str(handler.runtime_binary),
            root=str(handler.root),
            systemd_cgroup=systemd,
        )
    path = handler.config_path or configuration
    if family.options is OptionsKind.PATH and path is not None:
        return runtime_options_pb2.Options(type_url=family.options_type, config_path=str(path))
    return None
