"""What is said to a shim's program and what it answers, by generation. Runs nothing.

Facts: the sources of containerd 1.6 to 2.4, gVisor, Kata and runwasi. A shim gets its parameters as flags and
environment; newer ones read them as BootstrapParams from stdin and refuse to start without. The answer of
`start` is an address, a JSON object, or a BootstrapResult.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from google.protobuf.message import DecodeError, Message

from oci.errors import BadInput
from shim.runtimes.shimv2.addresses import LONGEST_PATH
from shim.runtimes.shimv2.proto import bootstrap_pb2, task_pb2

NAMESPACE: Final = "crisp"
_PUBLISHER: Final = "/bin/true"  # some shims insist on a program for events, which none of those here runs
_SOCKET_NAME: Final = 64  # a SHA-256 in hexadecimal
_WANTS_PARAMS: Final = "deprecated API"
_BEARS_REFUSALS: Final = 'mount --bind "$0" "/proc/$$/uid_map"; exec "$@"'

USER_NAMESPACE: Final = "0 0 65536\n"
"""A uid_map that is not the first user namespace's (user_namespaces(7))."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Where a shim serves, and the version of its Task service."""

    address: str
    version: int
    protocol: str = "ttrpc"


def arguments(
    program: Path, id_: str, *words: str, bundle: Path | None = None, events: str = ""
) -> list[str]:
    """The command line of `start` or `delete`."""
    return [
        str(program),
        "-namespace",
        NAMESPACE,
        "-address",
        events,
        "-publish-binary",
        _PUBLISHER,
        "-id",
        id_,
        *(("-bundle", str(bundle)) if bundle is not None else ()),
        *words,
    ]


def bearing_refusals(argv: list[str], uid_map: Path) -> list[str]:
    """The same command, which reads `uid_map` as the map of its own user namespace.

    containerd's library for shims bears that the kernel refuses a lower OOM score in a user namespace, and
    tells one by /proc/self/uid_map. The mount is on what the kernel shows of this one process, and goes with
    it; the shim that it starts reads the truth.
    """
    return ["/bin/sh", "-c", _BEARS_REFUSALS, str(uid_map), *argv]


def environment(*, directory: Path, events: str) -> dict[str, str]:
    """What a shim gets. PWD tells a program that was started in a link which one it is."""
    return {
        "GOMAXPROCS": "2",
        "MAX_SHIM_VERSION": "3",
        "NAMESPACE": NAMESPACE,
        "TTRPC_ADDRESS": events,
        "GRPC_ADDRESS": events,
        "PWD": str(directory),
    }


def wants_params(version: str) -> bool:
    """Whether containerd-shim-runc-v2 of this version reads BootstrapParams."""
    match = re.match(r"v?(\d+)\.(\d+)", version)
    return match is not None and (int(match[1]), int(match[2])) >= (2, 3)


def refused_as_deprecated(words: str) -> bool:
    """Whether a failed start asks for BootstrapParams."""
    return _WANTS_PARAMS in words


def params(id_: str, *, socket_dir: Path, events: str, options: Message | None) -> bytes:
    """BootstrapParams, encoded."""
    made = bootstrap_pb2.BootstrapParams(
        instance_id=id_,
        namespace=NAMESPACE,
        log_level=bootstrap_pb2.LOG_LEVEL_INFO,
        containerd_ttrpc_address=events,
        containerd_grpc_address=events,
        containerd_binary=_PUBLISHER,
    )
    if len(str(socket_dir)) + 1 + _SOCKET_NAME <= LONGEST_PATH:  # else its own default, which is short
        made.socket_dir = str(socket_dir)
    if options is not None:
        made.extensions.add().value.Pack(options, type_url_prefix="")
    return made.SerializeToString()


def parse_reply(output: bytes) -> Reply:
    """What `start` printed. Raises BadInput where it is none of the three forms."""
    text = output.strip()
    if not text:
        raise BadInput("start printed nothing, where the shim's address was expected")
    if text.startswith(b"{"):
        return _from_json(text)
    if re.match(rb"[\x20-\x7e]+\Z", text):
        return Reply(address=text.decode("ascii"), version=2)
    try:
        result = bootstrap_pb2.BootstrapResult.FromString(output)
    except DecodeError as error:
        raise BadInput(f"start printed {output[:80]!r}, which is no address") from error
    if not result.address or not 1 <= result.version <= _NEWEST:
        raise BadInput(f"start printed version {result.version} and address {result.address!r}")
    return _checked(
        Reply(address=result.address, version=result.version, protocol=result.protocol or "ttrpc")
    )


_NEWEST: Final = 3


def _from_json(text: bytes) -> Reply:
    try:
        document: Any = json.loads(text)
    except ValueError as error:
        raise BadInput(f"start printed {text[:80]!r}, which is no JSON object: {error}") from error
    address, version = document.get("address"), document.get("version")
    if not isinstance(address, str) or not address:
        raise BadInput(f"start printed no address: {text[:200]!r}")
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= _NEWEST:
        raise BadInput(f"start printed the version {version!r}; 2 and 3 are known")
    return _checked(
        Reply(address=address, version=version, protocol=str(document.get("protocol") or "ttrpc"))
    )


def _checked(reply: Reply) -> Reply:
    if reply.protocol != "ttrpc":
        raise BadInput(f"start printed the protocol {reply.protocol!r}; only ttrpc is spoken here")
    return reply


def parse_deleted(output: bytes) -> task_pb2.DeleteResponse | None:
    """What `delete` printed, None where it says nothing."""
    if not output:
        return None
    try:
        return task_pb2.DeleteResponse.FromString(output)
    except DecodeError:
        return None


def parse_version(text: str) -> str:
    """The version in what `-v` printed, "" where there is none.

    containerd's shims print `Version: v2.4.2` on a line of its own, Kata's and others a sentence.
    """
    match = re.search(r"\bversion\b:?\s*v?([0-9A-Za-z][\w.+~-]*)", text, re.IGNORECASE)
    return match[1] if match is not None and re.search(r"\d", match[1]) else ""
