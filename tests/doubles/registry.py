"""A registry on loopback that does what it is told: serve, lie, cut, hang, refuse, redirect, ask for tokens.

It keeps its content in memory and notes every request, headers included. `Rule`s are looked at in order for
each request; the first that fits and still has `times` left acts.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import io
import json
import platform
import re
import socket
import ssl
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as it came; header names in lower case."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True, kw_only=True)
class Answer:
    """What to send. `cut` ends the connection after so many bytes of the body; `length` lies about it."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None
    length: int | None = None
    hold: threading.Event | None = None  # wait for it before the body's second half
    before: threading.Event | None = None  # wait for it before anything is sent
    drip: float = 0.0  # seconds after each 1000 bytes of the body


Reaction = Callable[[Request, Answer], Answer]


@dataclass(slots=True, kw_only=True)
class Rule:
    """`react` gets the request and the right answer to it, for requests whose path fits the pattern."""

    pattern: str
    react: Reaction
    methods: tuple[str, ...] = ("GET",)
    times: int = -1  # -1 is always

    def fits(self, request: Request) -> bool:
        fitting = self.times != 0 and request.method in self.methods and re.search(self.pattern, request.path)
        return bool(fitting)


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """An uncompressed layer with these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What an image became in the registry."""

    manifest: str
    config: str
    layers: tuple[str, ...]
    diff_ids: tuple[str, ...]


class Registry:
    """The content, the rules and the log of one double; `serving` makes it answer."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}  # "repository:tag" and "repository@digest"
        self.rules: list[Rule] = []
        self.requests: list[Request] = []
        self.address = ""
        self.scheme = "http"
        self.closing = threading.Event()
        self.tunnels: dict[str, tuple[str, int]] = {}  # as a proxy: where CONNECT to "host:port" leads

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.address}"

    def reference(self, name: str) -> str:
        return f"{self.address}/{name}"

    def put_blob(self, content: bytes) -> str:
        digest = digest_of(content)
        self.blobs[digest] = content
        return digest

    def put_manifest(self, repository: str, tag: str, document: Mapping[str, Any] | bytes, kind: str) -> str:
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        digest = digest_of(content)
        self.manifests[f"{repository}@{digest}"] = (kind, content)
        if tag:
            self.manifests[f"{repository}:{tag}"] = (kind, content)
        return digest

    def push(
        self,
        repository: str,
        tag: str,
        layers: Iterable[bytes],
        *,
        config: Mapping[str, Any] | None = None,
        architecture: str = ARCHITECTURE,
        compress: Callable[[bytes], bytes] = lambda tar: gzip.compress(tar, 1, mtime=0),
        kind: str = LAYER,
    ) -> Pushed:
        """Keep an image whose layers are these tars."""
        tars = list(layers)
        blobs = [compress(tar) for tar in tars]
        diff_ids = tuple(digest_of(tar) for tar in tars)
        body = json.dumps(
            {
                "architecture": architecture,
                "os": "linux",
                "config": dict(config or {}),
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
            }
        ).encode()
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": self.put_blob(body), "size": len(body)},
            "layers": [
                {"mediaType": kind, "digest": self.put_blob(blob), "size": len(blob)} for blob in blobs
            ],
        }
        return Pushed(
            manifest=self.put_manifest(repository, tag, document, MANIFEST),
            config=digest_of(body),
            layers=tuple(digest_of(blob) for blob in blobs),
            diff_ids=diff_ids,
        )

    def on(
        self, pattern: str, react: Reaction, *, times: int = -1, methods: tuple[str, ...] = ("GET",)
    ) -> None:
        """Add a rule."""
        self.rules.append(Rule(pattern=pattern, react=react, times=times, methods=methods))

    def asked(self, pattern: str) -> list[Request]:
        """Requests whose path fits, oldest first."""
        return [request for request in self.requests if re.search(pattern, request.path)]

    def answer(self, request: Request) -> Answer:
        right = self._right(request)
        for rule in self.rules:
            if rule.fits(request):
                rule.times -= 1
                return rule.react(request, right)
        return right

    def _right(self, request: Request) -> Answer:
        found = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/([^/]+)", request.path)
        if found is None:
            return Answer(status=200 if request.path == "/v2/" else 404)
        repository, room, target = found.groups()
        if room == "manifests":
            joint = "@" if ":" in target else ":"
            kind, content = self.manifests.get(f"{repository}{joint}{target}", ("", b""))
            if not kind:
                return error(404, "MANIFEST_UNKNOWN", "manifest unknown")
            headers = {"Content-Type": kind, "Docker-Content-Digest": digest_of(content)}
            return Answer(headers=headers, body=content)
        blob = self.blobs.get(target)
        if blob is None:
            return error(404, "BLOB_UNKNOWN", "blob unknown")
        wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        if wanted is None:
            return Answer(body=blob)
        start = int(wanted[1])
        return Answer(
            status=206,
            headers={"Content-Range": f"bytes {start}-{len(blob) - 1}/{len(blob)}"},
            body=blob[start:],
        )


def error(status: int, code: str = "X", message: str = "told to", **headers: str) -> Answer:
    """An error as the distribution specification words it."""
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status=status, headers={"Content-Type": "application/json", **named}, body=body)


def failing(status: int, **headers: str) -> Reaction:
    return lambda _request, _right: error(status, **headers)


def cutting(after: int) -> Reaction:
    """Close the connection after so many bytes of the body, whose right length was announced."""

    def react(_request: Request, right: Answer) -> Answer:
        right.cut = after
        return right

    return react


def redirecting(base: str) -> Reaction:
    """To the same path at another place, with a signature in the query."""
    return lambda request, _right: Answer(
        status=307, headers={"Location": f"{base}{request.path}?X-Signature=SIGNED"}
    )


def bearer(realm: str, accepted: Callable[[str], bool]) -> Reaction:
    """Demand a token that `accepted` takes."""

    def react(request: Request, right: Answer) -> Answer:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme == "Bearer" and accepted(token):
            return right
        challenge = f'Bearer realm="{realm}",service="double",scope="repository:app:pull"'
        return error(401, "UNAUTHORIZED", WWW_Authenticate=challenge)

    return react


def basic(username: str, password: str) -> Reaction:
    pair = base64.b64encode(f"{username}:{password}".encode()).decode()

    def react(request: Request, right: Answer) -> Answer:
        if request.headers.get("authorization") == f"Basic {pair}":
            return right
        return error(401, "UNAUTHORIZED", WWW_Authenticate='Basic realm="double"')

    return react


@contextlib.contextmanager
def serving(context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[Registry]:
    """A registry that answers until the block ends; over TLS with a server's context."""
    registry = Registry()
    handler = type("Handler", (_Handler,), {"registry": registry})
    server = _Server((host, 0), handler) if ":" not in host else _Server6((host, 0), handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        registry.scheme = "https"
    shown = f"[{host}]" if ":" in host else host
    registry.address = f"{shown}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        registry.closing.set()
        server.shutdown()
        server.end_connections()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave are the point of many tests."""

    def end_connections(self) -> None:
        with self._lock:
            left = list(self._open)
        for connection in left:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    registry: Registry

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_CONNECT(self) -> None:
        target = self.registry.tunnels.get(self.path)
        if target is None:
            self._serve()
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.registry.requests.append(
            Request(method="CONNECT", path=self.path, query={}, headers=headers, body=b"")
        )
        self.close_connection = True
        with socket.create_connection(target) as there:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_pump, args=(there, self.connection))
            back.start()
            _pump(self.connection, there)
            back.join()

    def log_message(self, *_: object) -> None:
        """The log is `Registry.requests`."""

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        request = Request(
            method=self.command,
            path=parts.path if parts.path.startswith("/") else self.path,
            query=parse_qs(parts.query),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self.rfile.read(length) if length else b"",
        )
        self.registry.requests.append(request)
        answer = self.registry.answer(request)
        try:
            self._send(answer)
        except OSError:
            self.close_connection = True

    def _send(self, answer: Answer) -> None:
        if answer.before is not None:
            self._wait(answer.before)
        self.send_response(answer.status)
        headers = dict(answer.headers)
        headers["Content-Length"] = str(len(answer.body) if answer.length is None else answer.length)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        body = answer.body if answer.cut is None else answer.body[: answer.cut]
        half = len(body) // 2 if answer.hold is not None else len(body)
        if answer.drip:
            for at in range(0, half, 1000):
                self.wfile.write(body[at : min(at + 1000, half)])
                if self.registry.closing.wait(answer.drip):
                    raise BrokenPipeError
        else:
            self.wfile.write(body[:half])
        self.wfile.flush()
        if answer.hold is not None:
            self._wait(answer.hold)
            self.wfile.write(body[half:])
        if answer.cut is not None or answer.length is not None:
            self.close_connection = True

    def _wait(self, event: threading.Event) -> None:
        while not event.wait(0.02):
            if self.registry.closing.is_set():
                raise BrokenPipeError


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Bytes until either end is gone, which the other is then told."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
