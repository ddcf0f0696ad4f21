"""Rekor's word that a signature is in its log: the signed entry timestamp that cosign keeps beside it.

Checked offline with the log's key: the timestamp is the log's, and the entry is of this key or certificate,
this signature and this payload.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from oci.errors import BadInput
from oci.trust.pem import PublicKey, has_signed

_PEM_END = b"-----END "


def logged_at(
    bundle: str, logs: Sequence[PublicKey], *, signer: bytes, signature: bytes, payload: bytes
) -> int:
    """When one of `logs` took the entry in, in seconds since the Unix epoch.

    `signer` is the DER of the public key or certificate. Raises BadInput.
    """
    outer = _object(bundle, "the log's bundle", {"SignedEntryTimestamp", "Payload"})
    entry = outer["Payload"]
    if not isinstance(entry, dict) or entry.keys() != {"body", "integratedTime", "logIndex", "logID"}:
        raise BadInput("the log's bundle has no such payload as an entry has")
    time = entry["integratedTime"]
    if not isinstance(time, int) or isinstance(time, bool):
        raise BadInput("the log's bundle: integratedTime is not a number")
    stamp = _base64(outer["SignedEntryTimestamp"], "SignedEntryTimestamp")
    canonical = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    said = canonical.encode("utf-8", "surrogatepass")
    if not any(has_signed(log, stamp, said) for log in logs):
        raise BadInput("the entry's timestamp is not signed by the transparency log")
    _same(_base64(entry["body"], "body"), signer=signer, signature=signature, payload=payload)
    return time


def _same(body: bytes, *, signer: bytes, signature: bytes, payload: bytes) -> None:
    """The entry is of this signature (hashedrekord 0.0.1)."""
    entry = _object(body, "the log's entry", {"kind", "apiVersion", "spec"})
    if (entry["kind"], entry["apiVersion"]) != ("hashedrekord", "0.0.1"):
        raise BadInput(f"the log's entry is of kind {str(entry['kind'])[:60]!r}, not a hashedrekord 0.0.1")
    try:
        spec = entry["spec"]
        digest, content = spec["data"]["hash"], spec["signature"]["content"]
        key = spec["signature"]["publicKey"]["content"]
        algorithm, value = digest["algorithm"], digest["value"]
    except (KeyError, TypeError) as failure:
        raise BadInput("the log's entry is not complete") from failure
    if algorithm != "sha256" or value != hashlib.sha256(payload).hexdigest():
        raise BadInput("the log's entry is of another payload")
    if _base64(content, "signature") != signature:
        raise BadInput("the log's entry is of another signature")
    if pem_body(_base64(key, "publicKey")) != signer:
        raise BadInput("the log's entry is of another key or certificate")


def pem_body(text: bytes) -> bytes:
    """The DER inside of the one block of a PEM, whatever it is called. Raises BadInput."""
    lines = text.strip().splitlines()
    if (
        len(lines) < 3
        or not lines[0].startswith(b"-----BEGIN ")
        or not lines[-1].startswith(_PEM_END)
        or text.count(_PEM_END) != 1
    ):
        raise BadInput("not one block of PEM")
    return _base64(b"".join(line.strip() for line in lines[1:-1]), "PEM")


def _object(text: str | bytes, what: str, members: set[str]) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as failure:
        raise BadInput(f"{what} is not JSON") from failure
    if not isinstance(value, dict) or value.keys() != members:
        raise BadInput(f"{what} does not have exactly the members {', '.join(sorted(members))}")
    return value


def _base64(value: object, what: str) -> bytes:
    try:
        if not isinstance(value, (str, bytes)):
            raise ValueError
        return base64.b64decode(value, validate=True)
    except ValueError as failure:
        raise BadInput(f"{what} is not base64") from failure
