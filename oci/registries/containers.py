"""containers' dialect: `registries.conf`, version 2, and its drop-ins, as CRI-O and Podman read them.

Source: containers-registries.conf(5). A later file replaces an earlier one's lists and its `[[registry]]` of
the same prefix; aliases are joined.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from oci.errors import BadInput
from oci.reference import Reference, parse
from oci.registries.docker import insecure_pair
from oci.registries.document import ConfigFile, Section
from oci.registries.endpoint import Endpoint, Resolution, Step, asked_host, shown

AUTH_FILES = "containers-auth.json"
"""The word among `credential-helpers` that stands for the auth files."""

_TOP = (
    "unqualified-search-registries",
    "short-name-mode",
    "credential-helpers",
    "additional-layer-store-auth-helper",
    "aliases",
    "registry",
)
_REGISTRY = ("prefix", "location", "insecure", "blocked", "mirror-by-digest-only", "mirror")
_MIRROR = ("location", "insecure", "pull-from-mirror")
_MODES = ("enforcing", "permissive", "disabled")
_USES = ("all", "digest-only", "tag-only")
_PLACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{1,5})?|\[[0-9a-fA-F:]+\](?::[0-9]{1,5})?")
_PATH = re.compile(r"(?:[a-z0-9._-]+(?:/[a-z0-9._-]+)*)?")
HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    location: str
    insecure: bool
    use: str  # all, digest-only, tag-only
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """One `[[registry]]`."""

    prefix: str  # begins "*." for all subdomains
    location: str  # "" is the reference as it is
    insecure: bool
    blocked: str  # the line that blocks, "" when nothing does
    by_digest_only: bool
    mirrors: tuple[Mirror, ...]
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    name: str  # "registry/repository"; "" takes an earlier alias back
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Registries:
    """All files together. An origin is "file:line"."""

    search: tuple[tuple[str, str], ...] = ()  # (registry, origin)
    mode: str = "permissive"
    mode_origin: str = ""
    aliases: dict[str, Alias] = field(default_factory=dict)
    helpers: tuple[tuple[str, str], ...] = ()  # (name or AUTH_FILES, origin)
    registries: tuple[Registry, ...] = ()


def read(files: Iterable[ConfigFile]) -> Registries:
    """The meaning of the files in their order: the main one, then the drop-ins.

    Raises BadInput that names file, line and key.
    """
    together = Registries()
    for file in files:
        document = file.toml()
        if "registries" in document:
            raise document.wrong(
                "version 1 of registries.conf is not read: write unqualified-search-registries and"
                " [[registry]] tables (containers-registries.conf(5))",
                "registries",
            )
        document.refuse_unknown(_TOP)
        document.text("additional-layer-store-auth-helper")  # of a kind of store that is not ours
        found = tuple(_registry(table) for table in document.tables("registry"))
        prefixes = frozenset(registry.prefix for registry in found)
        kept = tuple(registry for registry in together.registries if registry.prefix not in prefixes)
        together = replace(
            together,
            aliases={**together.aliases, **_aliases(document.table("aliases"))},
            registries=kept + found,
        )
        if "unqualified-search-registries" in document:
            together = replace(together, search=_search(document))
        if "credential-helpers" in document:
            together = replace(together, helpers=_helpers(document))
        if "short-name-mode" in document:
            mode = _word(document, "short-name-mode", _MODES, "")
            together = replace(together, mode=mode, mode_origin=document.origin("short-name-mode"))
    return together


def match(reference: Reference, registries: Iterable[Registry]) -> Registry | None:
    """The one that speaks of `reference`: the longest prefix wins, a written one over a wildcard."""
    best: tuple[int, bool] = (-1, False)
    chosen = None
    for registry in registries:
        length = _matched(str(reference), registry.prefix)
        rank = (length, not registry.prefix.startswith("*."))
        if length >= 0 and rank > best:
            best, chosen = rank, registry
    return chosen


def _matched(name: str, prefix: str) -> int:
    """How many characters of `name` the prefix stands for, -1 for none of them."""
    if prefix.startswith("*."):
        host = re.split(r"[:/]", name, maxsplit=1)[0]  # a prefix has no port, whatever the name has
        return len(host) if host.endswith(prefix[1:]) else -1
    if not name.startswith(prefix):
        return -1
    return len(prefix) if len(name) == len(prefix) or name[len(prefix)] in ":/@" else -1


def resolve(reference: Reference, registry: Registry, itself: tuple[Endpoint, ...]) -> Resolution:
    """The mirrors that may be asked, then the location, which is the registry `itself` where it says so.

    Whether it is blocked is not asked here. Raises BadInput where nothing is left to ask for.
    """
    name = reference.name
    length = min(_matched(str(reference), registry.prefix), len(name))
    rest = name[length:]
    steps = [Step(text=f"{reference.name} falls under prefix {registry.prefix}", origin=registry.origin)]
    endpoints: list[Endpoint] = []
    for mirror in registry.mirrors:
        why = _unfit(reference, registry, mirror)
        if why:
            steps.append(Step(text=f"mirror {mirror.location} is left out: {why}", origin=mirror.origin))
            continue
        endpoints += _place(
            mirror.location + rest, reference, mirror.insecure, origin=mirror.origin, mirror=True
        )
    location = registry.location + rest if registry.location else name
    if location != name:
        steps.append(Step(text=f"{name} is kept at {location}", origin=registry.origin))
    if location == name and not registry.insecure:
        endpoints += [replace(endpoint, origin=endpoint.origin or registry.origin) for endpoint in itself]
    else:
        endpoints += _place(
            location, reference, registry.insecure, origin=registry.origin, mirror=location != name
        )
    return Resolution(endpoints=tuple(endpoints), steps=tuple(steps))


def _unfit(reference: Reference, registry: Registry, mirror: Mirror) -> str:
    if mirror.use == "digest-only" and not reference.digest:
        return "it is for digests only"
    if mirror.use == "tag-only" and reference.digest:
        return "it is for tags only"
    if registry.by_digest_only and not reference.digest:
        return "mirror-by-digest-only"
    return ""


def _place(
    name: str, reference: Reference, insecure: bool, *, origin: str, mirror: bool
) -> tuple[Endpoint, ...]:
    host, _, repository = name.partition("/")
    if not repository:
        raise BadInput(f"{origin}: {shown(name)!r} leaves no repository to ask {host} for")
    endpoint = Endpoint(
        scheme="https",
        host=asked_host(host),
        repository="" if repository == reference.repository else repository,
        mirror=mirror,
        origin=origin,
    )
    return insecure_pair(endpoint, origin) if insecure else (endpoint,)


def _registry(table: Section) -> Registry:
    table.refuse_unknown(_REGISTRY)
    location = _location(table)
    prefix = table.text("prefix").rstrip("/") or location
    if not prefix:
        raise table.wrong("neither prefix nor location is set")
    if "*" in prefix and not re.fullmatch(r"\*(?:\.[A-Za-z0-9-]+)+", prefix):
        raise table.wrong(f"{prefix[:120]!r}: a wildcard is written *.example.com and nothing else", "prefix")
    if "://" in prefix:
        raise table.wrong(f"{shown(prefix)!r} is a URL; write host/namespace", "prefix")
    if not location and not prefix.startswith("*."):
        raise table.wrong("location is missing; only a prefix such as *.example.com can do without")
    by_digest_only = table.flag("mirror-by-digest-only")
    mirrors = tuple(_mirror(mirror, by_digest_only) for mirror in table.tables("mirror"))
    return Registry(
        prefix=prefix,
        location=location,
        insecure=table.flag("insecure"),
        blocked=table.origin("blocked") if table.flag("blocked") else "",
        by_digest_only=by_digest_only,
        mirrors=mirrors,
        origin=table.origin(),
    )


def _mirror(table: Section, by_digest_only: bool) -> Mirror:
    table.refuse_unknown(_MIRROR)
    location = _location(table)
    if not location:
        raise table.wrong("location is missing")
    if by_digest_only and "pull-from-mirror" in table:
        raise table.wrong("cannot be set beside the registry's mirror-by-digest-only", "pull-from-mirror")
    use = _word(table, "pull-from-mirror", _USES, "all")
    return Mirror(
        location=location, insecure=table.flag("insecure"), use=use, origin=table.origin("location")
    )


def _location(table: Section) -> str:
    text = table.text("location").rstrip("/")
    host, _, path = text.partition("/")
    if text and not (_PLACE.fullmatch(host) and _PATH.fullmatch(path)):
        raise table.wrong(f"{shown(text)!r} is not host[:port] with or without a path", "location")
    return text


def _word(table: Section, key: str, words: tuple[str, ...], default: str) -> str:
    text = table.text(key, default)
    if text not in words:
        raise table.wrong(f"must be one of {', '.join(words)}, not {text[:60]!r}", key)
    return text


def _search(document: Section) -> tuple[tuple[str, str], ...]:
    key = "unqualified-search-registries"
    found = []
    for number, text in enumerate(document.texts(key)):
        host = text.rstrip("/")
        if not _PLACE.fullmatch(host):
            raise document.wrong(f"{shown(text)!r} is not host[:port]", key, number)
        found.append((host, document.origin(key, number)))
    return tuple(found)


def _helpers(document: Section) -> tuple[tuple[str, str], ...]:
    key = "credential-helpers"
    found = []
    for number, text in enumerate(document.texts(key)):
        if not HELPER_NAME.fullmatch(text):
            raise document.wrong(f"{text[:60]!r} is not the name of a credential helper", key, number)
        found.append((text, document.origin(key, number)))
    return tuple(found)


def _aliases(table: Section) -> dict[str, Alias]:
    found = {}
    for name in table:
        target = table.text(name)
        if target:
            try:
                parse(target)
            except BadInput as failure:
                raise table.wrong(failure.message, name) from failure
            host, _, path = target.partition("/")
            named = path and ("." in host or ":" in host or host == "localhost")
            if not named or ":" in path or "@" in path:
                raise table.wrong(f"{target[:120]!r} is not REGISTRY/REPOSITORY, without tag or digest", name)
        found[name] = Alias(name=target, origin=table.origin(name))
    return found
