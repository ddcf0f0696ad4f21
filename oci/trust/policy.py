"""containers-policy.json(5): what is demanded of an image, by where it comes from.

Everything unknown is refused by file and key: a policy that is half understood protects nothing.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from oci.errors import BadInput
from oci.reference import Reference, parse
from oci.trust.identity import (
    MATCH_REPO_DIGEST_OR_EXACT,
    ExactReference,
    ExactRepository,
    Identity,
    MatchExact,
    MatchRepository,
    RemapIdentity,
)
from oci.trust.requirements import (
    AcceptAnything,
    Fulcio,
    Keys,
    Pki,
    Reject,
    Requirement,
    SignedBy,
    SigstoreSigned,
)

DOCKER = "docker"
"""The transport of everything that comes from a registry."""
_TRANSPORTS = frozenset(
    {
        DOCKER, "atomic", "containers-storage", "dir", "docker-archive", "docker-daemon", "oci",
        "oci-archive", "ostree", "sif", "tarball",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """All of `requirements` must be met; `scope` says where in the policy they stand."""

    requirements: tuple[Requirement, ...]
    scope: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """`transports` by transport and scope; `default` is for what no scope covers."""

    default: Demand
    transports: Mapping[str, Mapping[str, Demand]]

    def of_registry(self, reference: Reference) -> Demand:
        """What is demanded of an image that is pulled under this name: the longest scope that fits."""
        return self._find(DOCKER, registry_scopes(reference))

    def of_archive(self, transport: str, path: str) -> Demand:
        """What is demanded of an image of an archive: by the file, then the directories above it."""
        return self._find(transport, _path_scopes(path))

    def _find(self, transport: str, scopes: Iterator[str]) -> Demand:
        known = self.transports.get(transport)
        if known is None:
            return self.default
        found = (known[scope] for scope in scopes if scope in known)
        return next(found, known.get("", self.default))


def registry_scopes(reference: Reference) -> Iterator[str]:
    """What a configuration may name an image of a registry by, the narrowest first."""
    name = reference.name
    # the digest decides what is pulled, so it is what the image is known by
    yield f"{name}@{reference.digest}" if reference.digest else f"{name}:{reference.tag}"
    yield name
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name
    host = name.partition(":")[0]
    while "." in host:
        host = host.partition(".")[2]
        yield f"*.{host}"


def _path_scopes(path: str) -> Iterator[str]:
    yield path
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path or "/"


def parse_policy(body: bytes, *, where: str) -> Policy:
    """The policy of a file. Raises BadInput that begins with `where` and the key."""
    try:
        document = json.loads(body, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as failure:
        raise BadInput(f"{where}: not JSON: {failure}") from failure
    table = _Table(document, where)
    default = _demand(table.take("default"), f"{where}: default")
    transports: dict[str, dict[str, Demand]] = {}
    scopes = _Table(table.take("transports", {}), f"{where}: transports")
    table.end()
    for transport in tuple(scopes.left):
        at = f"{where}: transports.{transport}"
        if transport not in _TRANSPORTS:
            raise BadInput(f"{at}: no transport of that name; there are {', '.join(sorted(_TRANSPORTS))}")
        given = _Table(scopes.take(transport), at)
        transports[transport] = {
            scope: _demand(given.take(scope), f'{at}."{scope}"') for scope in tuple(given.left)
        }
    return Policy(default=default, transports=transports)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key!r} is given twice")
        found[key] = value
    return found


class _Table:
    """A JSON object whose keys are taken one after the other; `end` refuses what is left."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise BadInput(f"{where}: not an object")
        self.where = where
        self.left: dict[str, Any] = dict(value)

    def take(self, key: str, *default: Any) -> Any:
        if key in self.left:
            return self.left.pop(key)
        if default:
            return default[0]
        raise BadInput(f"{self.where}: {key} is missing")

    def text(self, key: str, *default: str) -> str:
        value = self.take(key, *default)
        if not isinstance(value, str) or (not value and not default):
            raise BadInput(f"{self.where}.{key}: not a text")
        return value

    def end(self) -> None:
        if self.left:
            raise BadInput(f"{self.where}: unknown key {sorted(self.left)[0]!r}")

    def keys(self, name: str, *, plural: bool = True) -> Keys | None:
        """`NAMEPath`, `NAMEPaths`, `NAMEData` or `NAMEDatas`: one of them at most; None is none."""
        forms = [f"{name}Path", f"{name}Data"] + ([f"{name}Paths", f"{name}Datas"] if plural else [])
        given = [form for form in forms if form in self.left]
        if not given:
            return None
        if len(given) > 1:
            raise BadInput(f"{self.where}: {given[0]} and {given[1]} are given, there may be one of them")
        (form,) = given
        value = self.take(form)
        values = value if form.endswith("s") else [value]
        if not isinstance(values, list) or not values:
            raise BadInput(f"{self.where}.{form}: not a list with something in it")
        if not all(isinstance(one, str) and one for one in values):
            raise BadInput(f"{self.where}.{form}: not a text")
        if "Path" in form:
            for path in values:
                if not path.startswith("/") or "\0" in path:
                    raise BadInput(f"{self.where}.{form}: {path[:200]!r} is not an absolute path")
            return Keys(paths=tuple(values))
        try:
            return Keys(data=tuple(base64.b64decode(one, validate=True) for one in values))
        except ValueError as failure:
            raise BadInput(f"{self.where}.{form}: not base64") from failure


def _demand(value: Any, where: str) -> Demand:
    if not isinstance(value, list) or not value:
        raise BadInput(f"{where}: not a list with at least one requirement")
    requirements = tuple(_requirement(entry, f"{where}[{n}]") for n, entry in enumerate(value))
    return Demand(requirements=requirements, scope=where)


def _requirement(value: Any, where: str) -> Requirement:
    table = _Table(value, where)
    kind = table.text("type")
    if kind == "signedBaseLayer":
        raise BadInput(f"{where}.type: signedBaseLayer is not supported (nor does it work elsewhere)")
    make = _TYPES.get(kind)
    if make is None:
        raise BadInput(f"{where}.type: no requirement {kind[:100]!r}; there are {', '.join(_TYPES)}")
    made = make(table)
    table.end()
    return made


def _signed_by(table: _Table) -> SignedBy:
    kind = table.text("keyType")
    if kind != "GPGKeys":
        raise BadInput(f"{table.where}.keyType: {kind[:100]!r} is not supported, only GPGKeys is")
    keys = table.keys("key")
    if keys is None:
        raise BadInput(f"{table.where}: one of keyPath, keyPaths and keyData is missing")
    return SignedBy(keys=keys, identity=_identity(table))


def _sigstore_signed(table: _Table) -> SigstoreSigned:
    where = table.where
    keys, rekor = table.keys("key"), table.keys("rekorPublicKey")
    fulcio, pki = table.take("fulcio", None), table.take("pki", None)
    given = [name for name, one in (("a key", keys), ("fulcio", fulcio), ("pki", pki)) if one is not None]
    if len(given) != 1:
        raise BadInput(
            f"{where}: {' and '.join(given) or 'nothing'} is given, there must be one of a key (keyPath, "
            "keyPaths, keyData, keyDatas), fulcio and pki"
        )
    if fulcio is not None and rekor is None:
        raise BadInput(f"{where}: fulcio needs a rekorPublicKeyPath or rekorPublicKeyData")
    if pki is not None and rekor is not None:
        raise BadInput(f"{where}: a rekorPublicKey does not go with pki")
    return SigstoreSigned(
        keys=keys,
        fulcio=None if fulcio is None else _fulcio(_Table(fulcio, f"{where}.fulcio")),
        pki=None if pki is None else _pki(_Table(pki, f"{where}.pki")),
        rekor=rekor,
        identity=_identity(table),
    )


def _fulcio(table: _Table) -> Fulcio:
    authorities = table.keys("ca", plural=False)
    if authorities is None:
        raise BadInput(f"{table.where}: one of caPath and caData is missing")
    made = Fulcio(authorities=authorities, issuer=table.text("oidcIssuer"), email=table.text("subjectEmail"))
    table.end()
    return made


def _pki(table: _Table) -> Pki:
    roots = table.keys("caRoots", plural=False)
    if roots is None:
        raise BadInput(f"{table.where}: one of caRootsPath and caRootsData is missing")
    made = Pki(
        roots=roots,
        intermediates=table.keys("caIntermediates", plural=False) or Keys(),
        email=table.text("subjectEmail", ""),
        hostname=table.text("subjectHostname", ""),
    )
    if not made.email and not made.hostname:
        raise BadInput(f"{table.where}: one of subjectEmail and subjectHostname is missing")
    table.end()
    return made


_TYPES: dict[str, Callable[[_Table], Requirement]] = {
    "insecureAcceptAnything": lambda _: AcceptAnything(),
    "reject": lambda _: Reject(),
    "signedBy": _signed_by,
    "sigstoreSigned": _sigstore_signed,
}


def _identity(table: _Table) -> Identity:
    value = table.take("signedIdentity", None)
    if value is None:
        return MATCH_REPO_DIGEST_OR_EXACT
    inner = _Table(value, f"{table.where}.signedIdentity")
    kind = inner.text("type")
    made: Identity
    if kind == "matchRepoDigestOrExact":
        made = MATCH_REPO_DIGEST_OR_EXACT
    elif kind == "matchExact":
        made = MatchExact()
    elif kind == "matchRepository":
        made = MatchRepository()
    elif kind == "exactReference":
        made = ExactReference(inner.text("dockerReference"))
        named = parse(made.reference, field=f"{inner.where}.dockerReference", default_tag="")
        if not named.tag and not named.digest:
            raise BadInput(
                f"{inner.where}.dockerReference: {made.reference[:200]!r} has no tag and no digest"
            )
    elif kind == "exactRepository":
        made = ExactRepository(inner.text("dockerRepository"))
        named = parse(made.repository, field=f"{inner.where}.dockerRepository", default_tag="")
        if named.tag or named.digest:
            raise BadInput(f"{inner.where}.dockerRepository: {made.repository[:200]!r} is not a repository")
    elif kind == "remapIdentity":
        made = RemapIdentity(inner.text("prefix"), inner.text("signedPrefix"))
    else:
        raise BadInput(f"{inner.where}.type: {kind[:100]!r} is no way to match a name")
    inner.end()
    return made
