"""Who is asked for an image, in what order, how, and why: containerd's `certs.d/HOST/hosts.toml`.

One pure function, `resolve`; the caller reads the files. Its answer names file and line for each endpoint.
Credentials are not decided here (`oci/registry_auth.py`).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from oci.errors import BadInput
from oci.reference import DEFAULT_REGISTRY
from oci.registry_transfer import is_loopback

PULL = "pull"
RESOLVE = "resolve"
_CAPABILITIES = frozenset({PULL, RESOLVE, "push", "referrers"})
_DOCKER_HUB = "registry-1.docker.io"
_KEYS = frozenset({"capabilities", "ca", "client", "skip_verify", "header", "override_path", "dial_timeout"})


@dataclass(frozen=True, slots=True, kw_only=True)
class HostDirectory:
    """One directory of a certs.d: its path, the names in it, and the text of its hosts.toml (None: none)."""

    path: str
    names: tuple[str, ...] = ()
    hosts_toml: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One server that can be asked. `prefix` is the path before `/<repository>/manifests/...`."""

    scheme: str
    host: str  # with port, as in a URL
    prefix: str = "/v2"
    capabilities: frozenset[str] = frozenset({PULL, RESOLVE})
    ca: tuple[str, ...] = ()  # files of certificates trusted besides the system's
    client: tuple[tuple[str, str], ...] = ()  # (certificate file, key file or "")
    skip_verify: bool = False
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    namespace: str = ""  # sent as `ns`, so that a mirror of several registries knows which one is meant
    origin: str = ""  # "file:line", "" for what holds without configuration
    fallback: bool = False  # asked only when those before it gave no registry's answer

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}{self.prefix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    endpoints: tuple[Endpoint, ...]
    notes: tuple[str, ...] = ()  # "file:line: key x is not known and has no effect"


def directory_names(registry: str) -> tuple[str, ...]:
    """Names under which a certs.d may know a registry, the best first; `_default` is the caller's last."""
    host, colon, port = registry.rpartition(":")
    if colon and port.isdigit():
        return (f"{host}_{port}_", registry)
    return (registry,)


def resolve(registry: str, directory: HostDirectory | None = None) -> Resolution:
    """The endpoints for `registry`, in the order in which they are asked.

    The hosts of hosts.toml in its order, then its `server`, which is the registry itself where it is not
    named. Raises BadInput that names file and line.
    """
    if directory is None or directory.hosts_toml is None:
        return Resolution(endpoints=_defaults(registry, directory))
    path = f"{directory.path}/hosts.toml"
    text = directory.hosts_toml
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as failure:
        raise BadInput(f"{path}: {failure}") from failure
    notes: list[str] = []
    hosts = document.pop("host", {})
    if not isinstance(hosts, dict):
        raise BadInput(f"{path}:{_line(text, 'host')}: host is not a table")
    endpoints = []
    for url, table in hosts.items():
        origin = f"{path}:{_host_line(text, url)}"
        if not isinstance(table, dict):
            raise BadInput(f"{origin}: host.{url!r} is not a table")
        endpoints.append(_endpoint(url, table, registry, directory.path, origin, notes))
    server = document.pop("server", None)
    if server is not None and not isinstance(server, str):
        raise BadInput(f"{path}:{_line(text, 'server')}: server is not a text")
    if server:
        origin = f"{path}:{_line(text, 'server')}"
        last = _endpoint(server, document, registry, directory.path, origin, notes)
        if last.url in {endpoint.url for endpoint in endpoints}:
            notes.append(f"{origin}: server is a host above already")
        else:
            endpoints.append(last)
    else:
        notes.extend(f"{path}:{_line(text, key)}: key {key} has no effect without server" for key in document)
        endpoints.extend(_defaults(registry, directory))
    return Resolution(endpoints=tuple(endpoints), notes=tuple(notes))


def _defaults(registry: str, directory: HostDirectory | None) -> tuple[Endpoint, ...]:
    ca, client = _certificates(directory)
    origin = directory.path if directory is not None and (ca or client) else ""
    if registry == DEFAULT_REGISTRY:
        return (Endpoint(scheme="https", host=_DOCKER_HUB, ca=ca, client=client, origin=origin),)
    secure = Endpoint(scheme="https", host=registry, ca=ca, client=client, origin=origin)
    if is_loopback(urlsplit(f"//{registry}").hostname or "") and not origin:
        return (Endpoint(scheme="http", host=registry), replace(secure, fallback=True))
    return (secure,)


def _certificates(directory: HostDirectory | None) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Docker's layout of such a directory: *.crt are authorities, NAME.cert and NAME.key a client."""
    if directory is None:
        return (), ()
    names = frozenset(directory.names)
    base = directory.path
    ca = tuple(f"{base}/{name}" for name in sorted(names) if name.endswith(".crt"))
    client = tuple(
        (f"{base}/{name}", f"{base}/{name.removesuffix('.cert')}.key")
        for name in sorted(names)
        if name.endswith(".cert") and f"{name.removesuffix('.cert')}.key" in names
    )
    return ca, client


def _endpoint(
    url: str, table: Mapping[str, Any], registry: str, base: str, origin: str, notes: list[str]
) -> Endpoint:
    parts = urlsplit(url if "://" in url else f"https://{url}")
    try:
        valid = (
            parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port)
        )
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment or parts.username is not None:
        raise BadInput(f"{origin}: {_plain(url)!r} is not the URL of a registry")
    notes.extend(f"{origin}: key {key} is not known and has no effect" for key in table if key not in _KEYS)
    path = parts.path.rstrip("/")
    override = _flag(table, "override_path", origin)
    host = parts.netloc
    if host in (DEFAULT_REGISTRY, "index.docker.io"):
        host = _DOCKER_HUB
    own = host == registry or (registry == DEFAULT_REGISTRY and host == _DOCKER_HUB)
    capabilities = frozenset(_texts(table, "capabilities", origin)) or frozenset({PULL, RESOLVE})
    if unknown := capabilities - _CAPABILITIES:
        raise BadInput(
            f"{origin}: capabilities: {sorted(unknown)[0][:60]!r} is not one of pull, resolve, push"
        )
    return Endpoint(
        scheme=parts.scheme,
        host=host,
        prefix=path if override or path.endswith("/v2") else f"{path}/v2",
        capabilities=capabilities,
        ca=tuple(_path(base, name) for name in _texts(table, "ca", origin)),
        client=_clients(table, base, origin),
        skip_verify=_flag(table, "skip_verify", origin),
        headers=_headers(table, origin),
        namespace="" if own else registry,
        origin=origin,
    )


def _path(base: str, name: str) -> str:
    return name if name.startswith("/") else f"{base}/{name}"


def _plain(url: str) -> str:
    return url.rpartition("@")[2][:200]


def _flag(table: Mapping[str, Any], key: str, origin: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise BadInput(f"{origin}: {key} is not true or false")
    return value


def _texts(table: Mapping[str, Any], key: str, origin: str) -> tuple[str, ...]:
    value = table.get(key, [])
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise BadInput(f"{origin}: {key} is not a text or a list of texts")
    return tuple(words)


def _clients(table: Mapping[str, Any], base: str, origin: str) -> tuple[tuple[str, str], ...]:
    """`client` is a file with both, a list of such files, or a list of pairs [certificate, key]."""
    value = table.get("client", [])
    entries = [value] if isinstance(value, str) else value
    if not isinstance(entries, list):
        raise BadInput(f"{origin}: client is not a text or a list")
    found = []
    for entry in entries:
        pair = [entry, ""] if isinstance(entry, str) else entry
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(name, str) for name in pair):
            raise BadInput(f"{origin}: client is not made of files or pairs of files")
        found.append((_path(base, pair[0]), _path(base, pair[1]) if pair[1] else ""))
    return tuple(found)


def _headers(table: Mapping[str, Any], origin: str) -> tuple[tuple[str, str], ...]:
    value = table.get("header", {})
    if not isinstance(value, dict):
        raise BadInput(f"{origin}: header is not a table")
    found: list[tuple[str, str]] = []
    for name in value:
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
            raise BadInput(f"{origin}: header: {name[:60]!r} is not a header name")
        for text in _texts(value, name, f"{origin}: header"):
            if re.search(r"[\r\n\0]", text):
                raise BadInput(f"{origin}: header.{name}: line break or NUL in the value")
            found.append((name, text))
    return tuple(found)


def _line(text: str, key: str) -> int:
    pattern = re.compile(rf"""\s*(?:\[\s*)?["']?{re.escape(key)}["']?\s*(?:=|\]|\.)""")
    return next((n for n, line in enumerate(text.splitlines(), 1) if pattern.match(line)), 1)


def _host_line(text: str, url: str) -> int:
    pattern = re.compile(rf"""\s*\[\s*["']?host["']?\s*\.\s*["']?{re.escape(url)}["']?\s*\]""")
    return next(
        (n for n, line in enumerate(text.splitlines(), 1) if pattern.match(line)), _line(text, "host")
    )
