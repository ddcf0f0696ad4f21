"""What shims say when they refuse; the words of containerd-shim-runc-v2 are compared with the real one's."""

from __future__ import annotations

import re
from pathlib import Path

from shim.runtimes.shimv2.proto import runtime_options_pb2, task_pb2
from tests.doubles.shims.serving import INVALID, UNKNOWN, Refused
from tests.doubles.shims.ways import Ways


def check_options(ways: Ways, request: task_pb2.CreateTaskRequest) -> None:
    """Of Create. Raises Refused."""
    given, wanted = request.options.type_url, ways.options
    if not given:
        return
    if given != wanted:
        if ways.runc:
            raise Refused(UNKNOWN, f"type with url {given}: not found")
        raise Refused(INVALID, f'unsupported option type "{given}"')
    if wanted == "runtimeoptions.v1.Options":
        options = runtime_options_pb2.Options.FromString(request.options.value)
        if ways.options_type and options.type_url != ways.options_type:
            raise Refused(INVALID, f'unsupported option type "{options.type_url}"')
        if options.config_path and not Path(options.config_path).exists():
            raise Refused(UNKNOWN, f"stat {options.config_path}: no such file or directory")


def words(ways: Ways, verb: str, said: str) -> str:
    """What the shim makes of the runtime's words."""
    if ways.program.startswith("containerd-shim-kata"):
        missing = re.search(r"executable file `(.*)` not found", said)
        if missing is not None:
            said = f"the file {missing[1]} was not found\n\nStack backtrace:\n   0: <unknown>"
        return f"rpc error: code = Internal desc = {said}"
    if ways.runc:
        stage = {"create": "OCI runtime create failed", "exec": "OCI runtime exec failed"}
        return f"{stage.get(verb, f'OCI runtime {verb} failed')}: {said}"
    return said
