"""AppArmor on this machine: which profiles the kernel has, and loading the one that RuntimeDefault means."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from oci.bundle.apparmor import NAME, default_profile
from oci.errors import BadInput, CrispError
from oci.facts import HostFacts
from oci.workload import ProfileKind, SecurityProfile
from shim import process
from shim.threads import in_thread

log = logging.getLogger(__name__)

PROFILES = Path("/sys/kernel/security/apparmor/profiles")
_LINE = re.compile(r"(.+) \((?:enforce|complain|kill|unconfined|prompt|mixed)\)\Z")
_PARSER_TIME = 30.0  # seconds; on an emulated machine it takes one


def loaded(file: Path = PROFILES) -> frozenset[str]:
    """Names of the profiles that the kernel has. Blocking. Raises OSError."""
    matches = (_LINE.match(line) for line in file.read_text(encoding="utf-8").splitlines())
    return frozenset(match[1] for match in matches if match is not None)


async def prepare(host: HostFacts, name: str) -> str:
    """The profile that RuntimeDefault means, loaded if it is Crisp's own; "" where there is none.

    Never raises: without it containers run as on a kernel without AppArmor, those that ask for it by name
    are refused, and the log says why.
    """
    if not host.apparmor:
        return ""
    try:
        if name == NAME:
            text = default_profile().encode("ascii")
            await process.run(["apparmor_parser", "--replace"], stdin=text, timeout=_PARSER_TIME)
        if name in await in_thread(loaded):
            return name
        why = "the kernel does not have it: load it with apparmor_parser"
    except (CrispError, OSError) as error:
        why = str(error)
    log.error("no default AppArmor profile", extra={"profile": name, "reason": why})
    return ""


def check_loaded(host: HostFacts, profile: SecurityProfile | None, file: Path = PROFILES) -> None:
    """Raises BadInput for a profile of a request that the kernel does not have. Blocking."""
    if not host.apparmor or profile is None or profile.kind is not ProfileKind.LOCALHOST:
        return
    name = profile.ref.removeprefix("localhost/")
    field = "config.linux.security_context.apparmor.localhost_ref"
    try:
        known = loaded(file)
    except OSError as error:
        raise BadInput(
            f"{field}: whether {name[:200]!r} is loaded is not known: {file}: {error.strerror}"
        ) from error
    if name not in known:
        raise BadInput(
            f"{field}: profile {name[:200]!r} is not loaded (apparmor_parser loads it; {file} lists them)"
        )
