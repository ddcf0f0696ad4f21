"""Finding the signatures of an image: cosign's in its registry, GPG's in a lookaside store. Blocking.

Only fetches; whether one is any good is judged later.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote, urlsplit

from urllib3.exceptions import HTTPError

from oci.errors import Absent, BadInput, Busy
from oci.reference import Reference
from oci.registries.endpoint import PULL, Endpoint
from oci.registry_transfer import shown_url
from oci.trust.lookaside import Places, signature_url
from oci.trust.signatures import LARGEST, MOST, Signature, attachment_tag, parse_attachments
from shim.images.cancellation import Cancellation
from shim.images.connections import UNAVAILABLE, Connections, Trust, Unreachable
from shim.images.resolving import first_of
from shim.images.routes import Route
from shim.images.session import Session
from shim.images.settings import StoreSettings
from shim.images.trust.files import LOOKASIDE

_REASONABLE_PATH = re.compile(r"/[\x21-\x7e]*\Z")


def attached(
    route: Route, first: Endpoint | None, digests: Iterable[str], cancellation: Cancellation
) -> list[Signature]:
    """Signatures that cosign put beside the manifests in the registry; none is an empty list.

    Raises Busy (token RegistryUnavailable), BadInput (refused, not a manifest of signatures), Cancelled.
    """
    found: list[Signature] = []
    for digest in digests:
        tag = attachment_tag(digest)
        what = f"signatures of {route.reference.name}@{digest}"

        def ask(session: Session, tag: str = tag, what: str = what) -> list[Signature]:
            document = session.manifest(tag, what=what)
            return [
                Signature(
                    content=session.small_blob(entry.digest, entry.size, what=what),
                    annotations=entry.annotations,
                )
                for entry in parse_attachments(document.body, what=what)
            ]

        try:
            found += first_of(route.sessions(cancellation, capability=PULL, first=first), ask, what=what)
        except Absent:
            continue
    return found[:MOST]


def beside(
    reference: Reference,
    digests: Iterable[str],
    places: Places,
    settings: StoreSettings,
    cancellation: Cancellation,
) -> list[Signature]:
    """GPG signatures of a lookaside store, numbered from 1 without a gap; none is an empty list.

    Raises Busy (token RegistryUnavailable), BadInput (a URL, an answer), Cancelled.
    """
    base = places.lookaside(reference) or LOOKASIDE
    found: list[Signature] = []
    for digest in digests:
        for number in range(1, MOST + 1):
            url = signature_url(base, reference.repository, digest, number)
            try:
                body = _local(url) if url.startswith("file:") else _remote(url, settings, cancellation)
            except Unreachable as failure:
                raise Busy(f"signatures of {reference}: {failure.message}", token=UNAVAILABLE) from failure
            if body is None:
                break
            found.append(Signature(content=body))
    return found[:MOST]


def _local(url: str) -> bytes | None:
    path = unquote(urlsplit(url).path)
    try:
        with Path(path).open("rb") as file:
            body = file.read(LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as failure:
        raise BadInput(f"signature {path}: {failure.strerror}") from failure
    return _bounded(body, path)


def _remote(url: str, settings: StoreSettings, cancellation: Cancellation) -> bytes | None:
    parts = urlsplit(url)
    if not parts.hostname or not _REASONABLE_PATH.match(parts.path):
        raise BadInput(f"{shown_url(url)}: not a URL of signatures")
    endpoint = Endpoint(scheme=parts.scheme, host=parts.netloc, prefix="")
    connections = Connections(
        endpoint,
        Trust(endpoint),
        transfer=settings.transfer,
        environment=settings.environment,
        cancellation=cancellation,
    )
    try:
        response, last = connections.request("GET", url, {})
        try:
            if response.status == 404:
                return None
            if response.status != 200:
                raise Unreachable(f"{shown_url(last)}: answer {response.status}", answered=True)
            return _bounded(response.read(LARGEST + 1, decode_content=False), shown_url(last))
        except (HTTPError, HTTPException, OSError, ValueError) as failure:
            raise connections.failure(failure, last) from failure
        finally:
            response.close()
    finally:
        connections.close()


def _bounded(body: bytes, where: str) -> bytes:
    if len(body) > LARGEST:
        raise BadInput(f"signature {where}: over {LARGEST} bytes")
    return body
