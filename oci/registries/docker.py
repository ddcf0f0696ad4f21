"""Docker's dialect: `registry-mirrors` and `insecure-registries` of `daemon.json`.

Source: dockerd's reference. Mirrors are Docker Hub's alone. All other keys of the file are Docker's business.
"""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from urllib.parse import urlsplit

from oci.reference import DEFAULT_REGISTRY
from oci.registries.document import ConfigFile, Section
from oci.registries.endpoint import DOCKER_HUB, Endpoint, Resolution, Step, registry_url, shown

MIRRORS = "registry-mirrors"
INSECURE = "insecure-registries"


def resolve(registry: str, file: ConfigFile, itself: tuple[Endpoint, ...]) -> Resolution | None:
    """The endpoints for `registry`, `itself` last; None when the file does not speak of it.

    Raises BadInput that names file, line and key.
    """
    document = file.json()
    document.refuse_misspelt((MIRRORS, INSECURE))
    insecure = _insecure(document)
    mirrors = _mirrors(document)
    endpoints: list[Endpoint] = []
    steps: list[Step] = []
    if registry == DEFAULT_REGISTRY:
        for mirror in mirrors:
            found = _insecure_line(mirror.host, insecure)
            endpoints += insecure_pair(mirror, "") if found else (mirror,)
    line = _insecure_line(registry, insecure)
    if line:
        steps.append(Step(text=f"{registry} is an insecure registry", origin=line))
        endpoints += insecure_pair(replace(itself[-1], skip_verify=False, fallback=False), line)
    elif endpoints:
        endpoints += itself
    return Resolution(endpoints=tuple(endpoints), steps=tuple(steps)) if endpoints else None


def insecure_pair(endpoint: Endpoint, origin: str) -> tuple[Endpoint, ...]:
    """What "insecure" means to Docker and containers: TLS that nobody verifies, plain HTTP failing that.

    An endpoint that is plain HTTP anyway stays as it is.
    """
    endpoint = replace(endpoint, origin=origin or endpoint.origin)
    if endpoint.scheme == "http":
        return (endpoint,)
    return (replace(endpoint, skip_verify=True), replace(endpoint, scheme="http", fallback=True))


def _mirrors(document: Section) -> tuple[Endpoint, ...]:
    found = []
    for number, url in enumerate(document.texts(MIRRORS)):
        parts = registry_url(url)
        if parts is None or parts.path not in ("", "/"):
            raise document.wrong(
                f"{shown(url)!r} is not the URL of a mirror, such as https://mirror.example", MIRRORS, number
            )
        found.append(
            Endpoint(
                scheme=parts.scheme,
                host=parts.netloc,
                mirror=parts.netloc != DOCKER_HUB,
                origin=document.origin(MIRRORS, number),
            )
        )
    return tuple(found)


def _insecure(document: Section) -> tuple[tuple[str, str], ...]:
    """Each entry, as a host or a network, with its line."""
    found = []
    for number, entry in enumerate(document.texts(INSECURE)):
        name = entry.removeprefix("http://").removeprefix("https://").rstrip("/")
        try:
            ipaddress.ip_network(name, strict=False)
        except ValueError:
            if "/" in name or not name or urlsplit(f"//{name}").netloc != name or "@" in name:
                raise document.wrong(
                    f"{shown(entry)!r} is neither a host nor a network such as 10.0.0.0/8", INSECURE, number
                ) from None
        found.append((name.lower(), document.origin(INSECURE, number)))
    return tuple(found)


def _insecure_line(registry: str, entries: tuple[tuple[str, str], ...]) -> str:
    """Where `registry` (host, port) is called insecure, "" when it is not.

    Networks are compared with addresses that are written in the name; nothing is looked up.
    """
    host = urlsplit(f"//{registry}").hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    for entry, line in entries:
        if entry == registry.lower():
            return line
        try:
            if address is not None and address in ipaddress.ip_network(entry, strict=False):
                return line
        except ValueError:
            continue
    return ""
