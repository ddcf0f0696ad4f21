"""containerd's dialect: `certs.d/HOST/hosts.toml`, and the certificate files beside it, which Docker has too.

Source: containerd's docs/hosts.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import SplitResult

from config.units import parse_duration
from oci.errors import BadInput
from oci.registries.document import ConfigFile, Section
from oci.registries.endpoint import (
    PULL,
    RESOLVE,
    Endpoint,
    Resolution,
    Step,
    asked_host,
    registry_url,
    shown,
)

DEFAULT_DIRECTORY = "_default"
_CAPABILITIES = frozenset({PULL, RESOLVE, "push", "referrers"})
_HOST_KEYS = (
    "capabilities",
    "ca",
    "client",
    "skip_verify",
    "header",
    "override_path",
    "dial_timeout",
)
_KEYS = ("server", *_HOST_KEYS, "host")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostDirectory:
    """One directory of a certs.d: its path, the names of files in it, and its hosts.toml (None: none)."""

    path: str
    names: tuple[str, ...] = ()
    hosts_toml: ConfigFile | None = None
    problem: str = ""  # why it could not be read
    whole: bool = False  # it stands for a certs.d of which nothing is known but the problem

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """What a directory without hosts.toml says of its host: authorities, and who we are to it."""

    ca: tuple[str, ...] = ()
    client: tuple[tuple[str, str], ...] = ()
    origin: str = ""


def directory_names(registry: str) -> tuple[str, ...]:
    """Names under which a certs.d may know a registry, the best first; `_default` is not among them."""
    host, colon, port = registry.rpartition(":")
    if colon and port.isdigit():
        return (f"{host}_{port}_", registry)
    return (registry,)


def routing_directory(directories: Iterable[HostDirectory], names: Iterable[str]) -> HostDirectory | None:
    """The first directory of one of these names with a hosts.toml, in the order of the roots.

    Raises BadInput for one of them that cannot be read.
    """
    names = tuple(names)
    for directory in directories:
        if directory.whole or directory.name in names:
            if directory.problem:
                raise BadInput(f"{directory.path}: {directory.problem}")
            if directory.hosts_toml is not None:
                return directory
    return None


def certificates(directories: Iterable[HostDirectory], host: str) -> Certificates:
    """Docker's layout of such a directory: *.crt are authorities, NAME.cert and NAME.key a client."""
    names = directory_names(host)
    for directory in directories:
        if directory.name in names:
            found = _certificates_in(directory)
            if found.origin:
                return found
    return Certificates()


def _certificates_in(directory: HostDirectory) -> Certificates:
    base, there = directory.path, frozenset(directory.names)
    ca = tuple(f"{base}/{name}" for name in sorted(there) if name.endswith(".crt"))
    client = tuple(
        (f"{base}/{name}", f"{base}/{name.removesuffix('.cert')}.key")
        for name in sorted(there)
        if name.endswith(".cert") and f"{name.removesuffix('.cert')}.key" in there
    )
    return Certificates(ca=ca, client=client, origin=base if ca or client else "")


def resolve(registry: str, directory: HostDirectory, itself: tuple[Endpoint, ...]) -> Resolution:
    """The endpoints for `registry`, in the order in which they are asked.

    The hosts of hosts.toml in its order, then its `server`, which is the registry `itself` where it is not
    named. Raises BadInput that names file, line and key.
    """
    assert directory.hosts_toml is not None
    document = directory.hosts_toml.toml()
    document.refuse_unknown(_KEYS)
    steps: list[Step] = []
    hosts = document.table("host")
    endpoints = []
    for url in hosts:
        if _parts(url) is None:  # before anything else: what is wrong with a table is told with its name
            raise BadInput(f"{hosts.origin(url)}: host: {shown(url)!r} is not the URL of a registry")
        endpoints.append(_endpoint(url, hosts.table(url), registry, directory.path, mirror=True))
    server = document.text("server")
    if server:
        last = _endpoint(server, document, registry, directory.path, mirror=False)
        if last.url in {endpoint.url for endpoint in endpoints}:
            steps.append(Step(text="server is a host above already", origin=last.origin))
        else:
            endpoints.append(last)
    else:
        steps.extend(
            Step(text=f"{key} has no effect without server", origin=document.origin(key))
            for key in document
            if key in _HOST_KEYS
        )
        there = {endpoint.url for endpoint in endpoints}
        endpoints.extend(endpoint for endpoint in itself if endpoint.url not in there)
    return Resolution(endpoints=tuple(endpoints), steps=tuple(steps))


def _endpoint(url: str, table: Section, registry: str, base: str, *, mirror: bool) -> Endpoint:
    parts = _parts(url)
    below = () if mirror else ("server",)
    if parts is None:
        raise table.wrong(f"{shown(url)!r} is not the URL of a registry", *below)
    if mirror:
        table.refuse_unknown(_HOST_KEYS)
    path = parts.path.rstrip("/")
    override = table.flag("override_path")
    host = asked_host(parts.netloc)
    own = host in (registry, asked_host(registry))
    capabilities = frozenset(table.texts("capabilities", one=True)) or frozenset({PULL, RESOLVE})
    if unknown := sorted(capabilities - _CAPABILITIES):
        raise table.wrong(f"{unknown[0][:60]!r} is not one of pull, resolve, push, referrers", "capabilities")
    return Endpoint(
        scheme=parts.scheme,
        host=host,
        prefix=path if override or path.endswith("/v2") else f"{path}/v2",
        mirror=mirror and not own,
        capabilities=capabilities,
        ca=tuple(_path(base, name) for name in table.texts("ca", one=True)),
        client=_clients(table, base),
        skip_verify=table.flag("skip_verify"),
        headers=_headers(table.table("header", secret=True)),
        namespace="" if own else registry,
        dial_timeout=_duration(table, "dial_timeout"),
        origin=table.origin(*below),
    )


def _parts(url: str) -> SplitResult | None:
    return registry_url(url if "://" in url else f"https://{url}")


def _path(base: str, name: str) -> str:
    return name if name.startswith("/") else f"{base}/{name}"


def _duration(table: Section, key: str) -> float:
    text = table.text(key)
    if not text:
        return 0.0
    try:
        return float(parse_duration(text))
    except ValueError as failure:
        raise table.wrong(str(failure), key) from failure


def _clients(table: Section, base: str) -> tuple[tuple[str, str], ...]:
    """`client` is a file with both, a list of such files, or a list of pairs [certificate, key]."""
    value = table.values.get("client", [])
    entries = [value] if isinstance(value, str) else value
    if not isinstance(entries, list):
        raise table.wrong("must be a file, an array of files, or an array of pairs of files", "client")
    found = []
    for entry in entries:
        pair = [entry, ""] if isinstance(entry, str) else entry
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(name, str) for name in pair):
            raise table.wrong("is not made of files or pairs of files", "client")
        found.append((_path(base, pair[0]), _path(base, pair[1]) if pair[1] else ""))
    return tuple(found)


def _headers(table: Section) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    for name in table:
        if not _HEADER.fullmatch(name):
            raise table.wrong(f"{name[:60]!r} is not a header name")
        for text in table.texts(name, one=True):
            if re.search(r"[\r\n\0]", text):
                raise table.wrong("line break or NUL in the value", name)
            found.append((name, text))
    return tuple(found)
