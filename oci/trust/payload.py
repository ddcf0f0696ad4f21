"""What a signature says once it is known to be genuine: which digest was signed, under which name.

containers-signature(5) for GPG's, cosign's "simple signing" for sigstore's: one JSON with two types.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from oci.errors import BadInput
from oci.reference import is_digest

SIMPLE = "atomic container signature"
COSIGN = "cosign container image signature"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """The digest of a manifest or index, and the name it was signed under ("" where none was given)."""

    digest: str
    name: str


def parse_payload(body: bytes, kind: str) -> Signed:
    """Raises BadInput for anything but exactly the members that the specification has in `critical`."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as failure:
        raise BadInput("the signed text is not JSON") from failure
    strict = kind == SIMPLE  # where cosign writes null, or nothing
    needed = {"critical", "optional"} if strict else {"critical"}
    top = _members(document, needed, {"optional"}, "the signed text")
    if strict and not isinstance(top["optional"], dict):
        raise BadInput("optional is not an object")
    critical = _members(top["critical"], {"type", "image", "identity"}, set(), "critical")
    image = _members(critical["image"], {"docker-manifest-digest"}, set(), "critical.image")
    identity = _members(critical["identity"], {"docker-reference"}, set(), "critical.identity")
    if critical["type"] != kind:
        raise BadInput(f"critical.type is {str(critical['type'])[:80]!r}, not {kind!r}")
    digest, name = image["docker-manifest-digest"], identity["docker-reference"]
    if not isinstance(digest, str) or not is_digest(digest):
        raise BadInput("critical.image.docker-manifest-digest is not a sha256 digest")
    if not isinstance(name, str):
        raise BadInput("critical.identity.docker-reference is not a text")
    return Signed(digest=digest, name=name)


def _members(value: Any, needed: set[str], allowed: set[str], what: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not needed <= value.keys() <= needed | allowed:
        names = ", ".join(sorted(needed))
        raise BadInput(f"{what} does not have exactly the members {names}")
    return value
