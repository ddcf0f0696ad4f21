"""Talking to one endpoint about one repository: logins, tokens, tries, and what each failure is called.

Blocking, for threads; one object serves all threads of a pull. Secrets stay in here: no error, repr or log
of this module has any.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import TypeVar

from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from oci.errors import Absent, BadInput, Internal
from oci.manifest import ACCEPT
from oci.registries.endpoint import Endpoint
from oci.registry_auth import (
    Challenge,
    Login,
    choose_challenge,
    parse_challenges,
    parse_token,
    token_request,
)
from oci.registry_transfer import (
    Verdict,
    continues_at,
    judge,
    rate_limit,
    registry_words,
    retry_after,
    shown_url,
    wait_before,
)
from shim.images.cancellation import Cancellation
from shim.images.connections import Connections, Unreachable
from shim.images.settings import Limits, Transfer

T = TypeVar("T")

_TOKEN_BODY = 1 << 20


class Corrupt(Internal):
    """What came is not what its digest or size promised; another endpoint may have it right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A manifest as it came. `digest` is computed from the body, for a HEAD it is what the registry says."""

    body: bytes
    digest: str
    content_type: str


class Access:
    """The login at one endpoint for one repository, with the token that came of it; shared by sessions."""

    def __init__(self, login: Login | None, authorization: str = "") -> None:
        self.login = login
        self.lock = threading.Lock()
        ready = f"Bearer {login.bearer}" if login is not None and login.bearer else ""
        self.authorization = authorization or ready


class Session:
    """One endpoint, one repository, the connections of one piece of work."""

    def __init__(
        self,
        connections: Connections,
        endpoint: Endpoint,
        *,
        repository: str,
        access: Access,
        transfer: Transfer,
        limits: Limits,
        cancellation: Cancellation,
    ) -> None:
        self.endpoint = endpoint
        self._connections = connections
        self._repository = repository
        self._access = access
        self._login = access.login
        self._transfer = transfer
        self._limits = limits
        self._cancellation = cancellation

    @property
    def answered(self) -> bool:
        """Whether anything there speaks the endpoint's protocol, whatever it said."""
        return self._connections.answered

    @property
    def credential_source(self) -> str:
        if self._login is not None:
            return self._login.source
        return f"header of {self.endpoint.origin}" if self._own_header else "anonymous"

    @property
    def _own_header(self) -> bool:
        return any(name.lower() == "authorization" for name, _ in self.endpoint.headers)

    def manifest(self, target: str, *, what: str) -> Document:
        """The manifest of a tag or digest, its digest checked.

        Raises Absent, BadInput (refused, too large), Unreachable, Corrupt.
        """
        accept = {"Accept": ", ".join(ACCEPT)}

        def read() -> tuple[BaseHTTPResponse, str, bytes]:
            response, url = self._ask("GET", f"manifests/{target}", accept, what=what)
            return response, url, self._body(response, url, self._limits.manifest, what)

        response, url, body = self._until_whole(read)
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        said = response.headers.get("Docker-Content-Digest", "")
        expected = target if ":" in target else said if said.startswith("sha256:") else digest
        if digest != expected:
            raise Corrupt(f"{what}: {shown_url(url)} sent content of digest {digest}, not {expected[:80]}")
        return Document(body=body, digest=digest, content_type=response.headers.get("Content-Type", ""))

    def manifest_digest(self, tag: str, *, what: str) -> str:
        """The digest that a tag has at the registry, by HEAD; "" when it cannot be told that way."""
        accept = {"Accept": ", ".join(ACCEPT)}
        try:
            response, _ = self._ask("HEAD", f"manifests/{tag}", accept, what=what, once=True)
        except (Absent, BadInput, Internal, Unreachable) as failure:
            if isinstance(failure, Unreachable) and not failure.answered:
                raise
            return ""  # some registries refuse HEAD; the GET that follows gives the true reason
        self._connections.discard(response)
        return response.headers.get("Docker-Content-Digest", "")

    def open_blob(self, digest: str, offset: int, *, what: str) -> tuple[BaseHTTPResponse, int, str]:
        """A blob's content from `offset` on: the answer, how many bytes to leave out first, and its URL."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        response, url = self._ask("GET", f"blobs/{digest}", headers, what=what)
        try:
            skip = continues_at(response.status, response.headers.get("Content-Range", ""), offset=offset)
        except Internal as failure:
            response.close()
            raise Unreachable(f"{what}: {shown_url(url)}: {failure.message}") from failure
        return response, skip, url

    def small_blob(self, digest: str, size: int, *, what: str) -> bytes:
        """A blob in memory (an image configuration), its digest and size checked."""
        if size > self._limits.manifest:
            raise BadInput(f"{what}: {size} bytes, the limit is {self._limits.manifest}")

        def read() -> tuple[str, bytes]:
            response, _, url = self.open_blob(digest, 0, what=what)
            return url, self._body(response, url, size, what)

        url, body = self._until_whole(read)
        found = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if len(body) != size or found != digest:
            raise Corrupt(
                f"{what}: {shown_url(url)} sent {len(body)} bytes of digest {found}, "
                f"not {size} bytes of {digest}"
            )
        return body

    def _until_whole(self, read: Callable[[], T]) -> T:
        """Repeat what broke off in the middle of a body."""
        attempt = 0
        while True:
            try:
                return read()
            except Unreachable as failure:
                if not failure.broken or not self._pause(attempt, asked=None):
                    raise
                attempt += 1

    def close(self) -> None:
        """Close idle connections."""
        self._connections.close()

    def failure(self, error: BaseException, url: str) -> Exception:
        """What a connection that broke while a body was read is called."""
        return self._connections.failure(error, url)

    def _body(self, response: BaseHTTPResponse, url: str, limit: int, what: str) -> bytes:
        try:
            body = bytearray()
            while len(body) <= limit and (
                block := response.read(limit + 1 - len(body), decode_content=False)
            ):
                body += block
        except (HTTPError, HTTPException, OSError, ValueError) as failure:
            response.close()
            found = self.failure(failure, url)
            raise Unreachable(f"{what}: {found}", broken=True) from failure
        if len(body) > limit:
            response.close()
            raise BadInput(f"{what}: {shown_url(url)} sent more than {limit} bytes")
        response.release_conn()
        return bytes(body)

    def _url(self, path: str) -> str:
        namespace = f"?ns={self.endpoint.namespace}" if self.endpoint.namespace else ""
        return f"{self.endpoint.url}/{self._repository}/{path}{namespace}"

    def _ask(
        self, method: str, path: str, headers: Mapping[str, str], *, what: str, once: bool = False
    ) -> tuple[BaseHTTPResponse, str]:
        url = self._url(path)
        attempt = 0
        challenged = False
        while True:
            authorization = self._access.authorization
            private = dict(self.endpoint.headers)
            if authorization:
                private = {k: v for k, v in private.items() if k.lower() != "authorization"}
                private["Authorization"] = authorization
            try:
                response, last = self._connections.request(method, url, headers, private=private)
            except Unreachable as failure:
                if not failure.again or not self._pause(attempt, asked=None):
                    raise Unreachable(f"{what}: {failure.message}") from failure
                attempt += 1
                continue
            verdict = judge(response.status)
            if verdict is Verdict.GOOD:
                return response, last
            asked = retry_after(response.headers.get("Retry-After", ""), now=time.time())
            challenges = parse_challenges(tuple(response.headers.getlist("WWW-Authenticate")))
            words = registry_words(self._connections.discard(response))
            said = f"{response.status}{': ' + words if words else ''}"
            if verdict is Verdict.CHALLENGE and not challenged and last.startswith(self.endpoint.url):
                challenged = True
                if self._authenticate(challenges, authorization, what=what):
                    continue
            if verdict is Verdict.TRANSIENT:
                if not once and self._pause(attempt, asked=asked):
                    attempt += 1
                    continue
                later = f", it asks to wait {asked:.0f} s" if asked else ""
                if limit := rate_limit(response.headers.get("RateLimit-Limit", "")):
                    later += f", its limit is {limit}"
                reason = "limits the rate of requests" if response.status == 429 else "is in trouble"
                raise Unreachable(
                    f"{what}: {shown_url(last)}: the registry {reason} (answer {said}){later}", answered=True
                )
            raise self._refusal(verdict, said, shown_url(last), what)

    def _refusal(self, verdict: Verdict, said: str, url: str, what: str) -> Exception:
        if verdict is Verdict.ABSENT:
            return Absent(f"{what}: not found at {url} (answer {said})")
        if verdict in (Verdict.CHALLENGE, Verdict.DENIED):
            why = "refused the credentials" if self._login else "wants credentials, or there is no such image"
            return BadInput(f"{what}: {self.endpoint.host} {why}: {url} (answer {said})")
        return Internal(f"{what}: {url}: unexpected answer {said}")

    def _pause(self, attempt: int, *, asked: float | None) -> bool:
        transfer = self._transfer
        seconds = wait_before(
            attempt,
            asked=asked,
            retries=transfer.retries,
            backoff=transfer.backoff,
            longest=transfer.longest_wait,
            jitter=random.random(),  # noqa: S311 - spreads retries, hides nothing
        )
        if seconds is None:
            return False
        self._cancellation.wait(seconds)
        return True

    def _authenticate(self, challenges: tuple[Challenge, ...], used: str, *, what: str) -> bool:
        """Answer a challenge; False when there is nothing to answer it with."""
        with self._access.lock:
            if self._access.authorization != used:
                return True  # another thread has just done it
            challenge = choose_challenge(challenges)
            if challenge is None:
                return False
            if challenge.scheme == "basic":
                basic = self._login.basic if self._login is not None else ""
                if not basic or basic == used:
                    return False
                self._access.authorization = basic
                return True
            if self._login is not None and self._login.bearer:
                return False  # a ready token was given and refused
            self._access.authorization = f"Bearer {self._token(challenge, what)}"
            return True

    def _token(self, challenge: Challenge, what: str) -> str:
        request = token_request(
            challenge, self._login, repository=self._repository, registry_scheme=self.endpoint.scheme
        )
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if request.form else {}
        private = {"Authorization": request.authorization} if request.authorization else {}
        attempt = 0
        while True:
            try:
                # a redirect would carry the form, with its token, to wherever it leads
                response, url = self._connections.request(
                    request.method,
                    request.url,
                    headers,
                    private=private,
                    body=request.form or None,
                    redirects=not request.form,
                )
            except Unreachable as failure:
                if failure.again and self._pause(attempt, asked=None):
                    attempt += 1
                    continue
                raise Unreachable(f"{what}: token service: {failure.message}") from failure
            verdict = judge(response.status)
            if verdict is Verdict.GOOD:
                return parse_token(self._body(response, url, _TOKEN_BODY, f"{what}: token service")).value
            asked = retry_after(response.headers.get("Retry-After", ""), now=time.time())
            words = registry_words(self._connections.discard(response))
            said = f"{response.status}{': ' + words if words else ''}"
            if verdict is Verdict.TRANSIENT:
                if self._pause(attempt, asked=asked):
                    attempt += 1
                    continue
                raise Unreachable(f"{what}: token service {shown_url(url)} is in trouble (answer {said})")
            raise self._refusal(verdict, said, shown_url(url), f"{what}: token service")
