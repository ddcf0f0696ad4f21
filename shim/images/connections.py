"""HTTP to one registry endpoint: connections, certificates, proxies, redirects. Blocking, for threads.

What an answer means and when to ask again is `oci/registry_transfer.py`'s; tokens are `session.py`'s.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Mapping
from http.client import HTTPException
from urllib.parse import unquote, urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
)
from urllib3.response import BaseHTTPResponse, HTTPResponse

from oci.errors import BadInput, CrispError, Internal
from oci.registries.endpoint import Endpoint
from oci.registry_transfer import MAXIMUM_REDIRECTS, REDIRECTS, Hop, follow, proxy_for, shown_url
from shim.images.cancellation import Cancellation, Cancelled
from shim.images.dialing import dial
from shim.images.settings import Transfer

UNAVAILABLE = "RegistryUnavailable"
"""The token by which kubelet knows this failure."""
# At DEBUG urllib3 logs whole URLs; those of redirects to storage are signed, that is: secrets.
logging.getLogger("urllib3").setLevel(logging.WARNING)

AGENT = "crisp/0.1"
ERROR_BODY = 64 * 1024
"""Bytes of an error's body that are looked at."""


class Unreachable(CrispError):
    """No usable answer came: refused, no such host, time-out, cut, TLS failure, 429, 5xx.

    `again` says that the same request may well succeed at once (a connection that broke), `answered` that
    there was an answer, if no good one, `broken` that a good one broke off in its body.
    """

    kind = "busy"

    def __init__(
        self, message: str, *, again: bool = False, answered: bool = False, broken: bool = False
    ) -> None:
        super().__init__(message)
        self.broken = broken
        self.again = again
        self.answered = answered


def _watched(cancellation: Cancellation) -> dict[str, type[HTTPConnectionPool]]:
    """Pool classes whose connections end with `cancellation`, also while they are being made."""

    def connected(connection: HTTPConnection) -> socket.socket:
        timeout = connection.timeout
        seconds = float(timeout) if isinstance(timeout, (int, float)) else None
        host = connection._dns_host
        try:
            return dial(host, connection.port or 0, seconds, cancellation)
        except socket.gaierror as failure:
            raise NameResolutionError(host, connection, failure) from failure
        except TimeoutError as failure:
            raise ConnectTimeoutError(connection, f"{host} did not answer within {seconds:g} s") from failure
        except OSError as failure:
            raise NewConnectionError(connection, str(failure)) from failure

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return connected(self)

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return connected(self)

        def connect(self) -> None:
            super().connect()
            if self.sock is not None:
                cancellation.watch(self.sock)
            # only what an operator configured goes unverified; urllib3 would warn of each such request
            self.is_verified = True

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


def tls_context(endpoint: Endpoint, *, own: bool) -> ssl.SSLContext:
    """The system's trust store, with what the endpoint's configuration adds. Raises BadInput (file, why).

    Token services and storage to which the endpoint sends us are often under the same private authority, so
    that holds for them too; a client certificate is shown to the endpoint itself only (`own`).
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Python 3.13 refuses authorities without a key usage extension, which the peers and 3.11 take
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    where = endpoint.origin or endpoint.host
    for authority in endpoint.ca:
        try:
            context.load_verify_locations(cafile=authority)
        except (OSError, ssl.SSLError) as failure:
            raise BadInput(f"{where}: ca {authority}: {_why(failure)}") from failure
    for certificate, key in endpoint.client if own else ():
        try:
            context.load_cert_chain(certificate, key or None)
        except (OSError, ssl.SSLError) as failure:
            raise BadInput(f"{where}: client {certificate}: {_why(failure)}") from failure
    if endpoint.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _why(failure: BaseException) -> str:
    text = getattr(failure, "strerror", None) or getattr(failure, "reason", None) or str(failure)
    return " ".join(str(text).split())[:300]


class Trust:
    """The TLS contexts of one endpoint, made once: reading the system's authorities takes milliseconds."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._lock = threading.Lock()
        self._contexts: dict[bool, ssl.SSLContext] = {}

    def context(self, *, own: bool) -> ssl.SSLContext:
        with self._lock:
            if own not in self._contexts:
                self._contexts[own] = tls_context(self._endpoint, own=own)
            return self._contexts[own]


class Connections:
    """Requests to an endpoint and to where it redirects, for one piece of work, which can be cancelled."""

    def __init__(
        self,
        endpoint: Endpoint,
        trust: Trust,
        *,
        transfer: Transfer,
        environment: Mapping[str, str],
        cancellation: Cancellation,
    ) -> None:
        self._trust = trust
        self._environment = environment
        self._cancellation = cancellation
        self.answered = False  # a server of HTTP is there, whatever it said
        dial = min(endpoint.dial_timeout or transfer.connect_timeout, transfer.connect_timeout)
        self._timeout = urllib3.Timeout(connect=dial, read=transfer.read_timeout)
        self._managers: dict[tuple[str, str, bool], urllib3.PoolManager] = {}
        self._base = f"{endpoint.scheme}://{endpoint.host}/"

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        private: Mapping[str, str] | None = None,
        body: str | None = None,
        redirects: bool = True,
    ) -> tuple[BaseHTTPResponse, str]:
        """The answer with its body unread, and the URL that gave it.

        `private` headers (Authorization, configured ones) go to the first URL's origin alone, also after
        redirects. Raises Unreachable, Internal (bad redirect), Cancelled.
        """
        hop = Hop(url=url, trusted=True)
        for _ in range(MAXIMUM_REDIRECTS + 1):
            sent = {"User-Agent": AGENT, "Accept-Encoding": "identity", **headers}
            if hop.trusted:
                sent.update(private or {})
            response = self._once(method, hop.url, sent, body)
            # 400 is how servers answer plain HTTP on their TLS port
            self.answered = self.answered or response.status != 400
            location = response.headers.get("Location", "")
            if not redirects or response.status not in REDIRECTS or not location:
                return response, hop.url
            hop = follow(url, hop.url, location)
            self.discard(response)
        raise Internal(f"{shown_url(url)}: more than {MAXIMUM_REDIRECTS} redirects")

    def _once(self, method: str, url: str, headers: Mapping[str, str], body: str | None) -> BaseHTTPResponse:
        self._cancellation.check()
        manager = self._manager(url)
        try:
            return manager.request(
                method,
                url,
                headers=headers,
                body=body,
                timeout=self._timeout,
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except (HTTPError, HTTPException, OSError, ValueError) as failure:
            raise self.failure(failure, url) from failure

    def failure(self, error: BaseException, url: str) -> CrispError:
        """What a broken connection is called; raises Cancelled instead when that is the reason."""
        if self._cancellation.cancelled:
            raise Cancelled from error
        again = isinstance(error, (ProtocolError, HTTPException, ConnectionResetError, BrokenPipeError))
        cause: BaseException = error
        while (inner := cause.__cause__ or cause.__context__) is not None and not isinstance(cause, OSError):
            cause = inner
        words = (
            _why(cause) if isinstance(cause, OSError) and str(cause) else " ".join(str(error).split())[:300]
        )
        return Unreachable(
            f"{shown_url(url)}: {_without_objects(words) or type(error).__name__}", again=again
        )

    def _manager(self, url: str) -> urllib3.PoolManager:
        proxy = proxy_for(url, self._environment)
        own = url.startswith(self._base)
        key = (proxy, url.partition(":")[0], own)
        manager = self._managers.get(key)
        if manager is None:
            # a proxy itself may be asked over TLS although the URL is plain
            secure = url.startswith("https:") or proxy.startswith("https:")
            context = self._trust.context(own=own) if secure else None
            if proxy:
                parts = urlsplit(proxy)
                login = None
                if parts.username:
                    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
                    login = urllib3.make_headers(proxy_basic_auth=pair)
                    proxy = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
                try:
                    manager = urllib3.ProxyManager(proxy, proxy_headers=login, maxsize=8, ssl_context=context)
                except (HTTPError, ValueError) as failure:
                    raise BadInput(f"proxy {shown_url(proxy)}: not the URL of an HTTP proxy") from failure
            else:
                manager = urllib3.PoolManager(maxsize=8, ssl_context=context)
            manager.pool_classes_by_scheme = _watched(self._cancellation)
            manager = self._managers.setdefault(key, manager)
        return manager

    def discard(self, response: BaseHTTPResponse) -> bytes:
        """The first `ERROR_BODY` bytes of a body that is not wanted; a longer one costs the connection."""
        try:
            body = response.read(ERROR_BODY, decode_content=False)
        except (HTTPError, HTTPException, OSError, ValueError):
            response.close()
            return b""
        if isinstance(response, HTTPResponse) and response.length_remaining == 0:
            response.release_conn()
        else:
            response.close()
        return body

    def close(self) -> None:
        for manager in self._managers.values():
            manager.clear()


def _without_objects(words: str) -> str:
    """urllib3 puts the repr of its connection before the reason."""
    return words.rpartition("object at 0x")[2].partition(">: ")[2] or words
