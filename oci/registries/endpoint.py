"""A server that can be asked for a repository, and how: what every dialect's configuration comes down to."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from oci.reference import DEFAULT_REGISTRY

PULL = "pull"
RESOLVE = "resolve"
DOCKER_HUB = "registry-1.docker.io"
"""The host that answers for docker.io."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One server that can be asked. `prefix` is the path before `/<repository>/manifests/...`."""

    scheme: str
    host: str  # with port, as in a URL
    prefix: str = "/v2"
    repository: str = ""  # what the image's repository is called there; "" as in the reference
    mirror: bool = False  # stands in for the registry that the reference names
    capabilities: frozenset[str] = frozenset({PULL, RESOLVE})
    ca: tuple[str, ...] = ()  # files of certificates trusted besides the system's
    client: tuple[tuple[str, str], ...] = ()  # (certificate file, key file or "")
    skip_verify: bool = False
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    namespace: str = ""  # sent as `ns`, so that a mirror of several registries knows which one is meant
    dial_timeout: float = 0.0  # seconds for a connection to be made; 0 is the setting of all
    origin: str = ""  # "file:line", "" for what holds without configuration
    fallback: bool = False  # asked only when nothing at the same host gave a registry's answer

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}{self.prefix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One decision in words, and the "file:line" that made it ("" for what holds without configuration)."""

    text: str
    origin: str = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.origin or 'default'})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What one dialect says about a reference."""

    endpoints: tuple[Endpoint, ...]
    steps: tuple[Step, ...] = ()


def asked_host(host: str) -> str:
    """The host that is asked when `host` is configured: docker.io is answered for elsewhere."""
    return DOCKER_HUB if host in (DEFAULT_REGISTRY, "index.docker.io") else host


def registry_url(url: str) -> SplitResult | None:
    """The parts of a registry's http(s) URL, None for anything else: no login, query or fragment in it."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    if not valid or parts.query or parts.fragment or parts.username is not None:
        return None
    return parts


def shown(text: str) -> str:
    """A configured URL or name for a message, without a login that stands before the host."""
    return text.rpartition("@")[2][:200] if "/" in text else text[:200]
