"""Which credentials are shown to an endpoint: the request's, else those of the node's auth files.

Sources: containers-auth.json(5) (keys with paths, the longest wins), Docker's `config.json` (`credsStore`,
`credHelpers`, tokens). Nothing is called here: a credential helper is named, and who calls it comes back with
its answer. No secret is in any repr, explanation or error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from oci.errors import BadInput, Internal
from oci.reference import DEFAULT_REGISTRY
from oci.registries.containers import AUTH_FILES, HELPER_NAME
from oci.registries.document import ConfigFile, Section
from oci.registries.endpoint import Endpoint
from oci.registry_auth import DOCKER_HOSTS, Credentials, Login, decode_auth, login_for

_KEYS = ("auths", "credHelpers", "credsStore")
_ENTRY = ("auth", "username", "password", "identitytoken", "registrytoken", "email", "serveraddress")
_HUB_KEY = "https://index.docker.io/v1/"
"""What Docker Hub has always been called in credential stores."""
_NONE = ("credentials not found in native keychain", "no credentials server URL", "no credentials username")


@dataclass(frozen=True, slots=True, kw_only=True)
class Helper:
    """A call to be made: `docker-credential-NAME get` with `server` on its standard input."""

    name: str
    server: str
    origin: str  # "file:line" that names it


Source = Login | Helper


def sources(
    endpoint: Endpoint,
    *,
    registry: str,
    repository: str,
    request: Credentials | None,
    files: Iterable[ConfigFile],
    helpers: Iterable[tuple[str, str]] = (),
) -> tuple[Source, ...]:
    """Where credentials for `repository` at `endpoint` come from, the first that has any is used; () is none.

    `registry` is the reference's, `helpers` are `credential-helpers` of registries.conf. Raises BadInput.
    """
    own = login_for(request, registry=registry, endpoint=endpoint.host)
    if own is not None:
        return (own,)
    host = _hub(endpoint.host)
    path = "/".join(
        part for part in (*endpoint.prefix.split("/"), *repository.split("/")) if part not in ("", "v2")
    )
    found: list[Source] = []
    for name, origin in tuple(helpers) or ((AUTH_FILES, ""),):
        if name == AUTH_FILES:
            for file in files:
                found += _of_file(file.json(), host, path)
        else:
            found.append(Helper(name=name, server=_server(host), origin=origin))
    ready = next((n for n, source in enumerate(found, 1) if isinstance(source, Login)), len(found))
    return tuple(found[:ready])


def check(file: ConfigFile) -> None:
    """Read everything that an auth file has. Raises BadInput."""
    document = file.json()
    _of_file(document, "", "")
    helpers = document.table("credHelpers")
    for key in helpers:
        _helper_name(helpers, key)
    auths = document.table("auths", secret=True)
    for key in auths:
        _login(auths.table(key))


def _of_file(document: Section, host: str, path: str) -> list[Source]:
    document.refuse_misspelt(_KEYS)
    found: list[Source] = []
    helpers = document.table("credHelpers")
    for key in helpers:
        if _split(key)[0] == host:
            name = _helper_name(helpers, key)
            found.append(Helper(name=name, server=_server(host), origin=helpers.origin(key)))
            break
    if "credsStore" in document and document.text("credsStore"):
        name = _helper_name(document, "credsStore")
        found.append(Helper(name=name, server=_server(host), origin=document.origin("credsStore")))
    auths = document.table("auths", secret=True)
    best, length = "", -1
    for key in auths:
        key_host, key_path = _split(key)
        fits = not key_path or path == key_path or path.startswith(f"{key_path}/")
        if key_host == host and fits and len(key_path) > length:
            best, length = key, len(key_path)
    if length >= 0:
        login = _login(auths.table(best))
        found += [login] if login is not None else []
    return found


def _login(entry: Section) -> Login | None:
    entry.refuse_misspelt(_ENTRY)
    source = entry.origin()
    if token := entry.text("identitytoken"):
        return Login(refresh_token=token, source=source)
    if token := entry.text("registrytoken"):
        return Login(bearer=token, source=source)
    if auth := entry.text("auth"):
        try:
            username, password = decode_auth(auth)
        except BadInput:
            raise entry.wrong("is not base64 of user:password", "auth") from None
        return Login(username=username, password=password, source=source)
    username = entry.text("username")
    return Login(username=username, password=entry.text("password"), source=source) if username else None


def _helper_name(table: Section, key: str) -> str:
    name = table.text(key)
    if not HELPER_NAME.fullmatch(name):
        raise table.wrong(f"{name[:60]!r} is not the name of a credential helper", key)
    return name


def parse_helper(output: bytes, helper: Helper, *, status: int) -> Login | None:
    """What a credential helper answered; None: it knows nothing of that server.

    Raises Internal, in which nothing of the output is.
    """
    if status != 0:
        said = output[:200].decode("utf-8", "replace").strip()
        if said in _NONE:
            return None
        raise Internal(f"{told(helper)} ended with status {status}: run it by hand to see why")
    try:
        answer = json.loads(output)
        username, secret = answer["Username"], answer["Secret"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Internal(f"{told(helper)} did not answer with Username and Secret") from None
    if not isinstance(username, str) or not isinstance(secret, str):
        raise Internal(f"{told(helper)} did not answer with Username and Secret")
    if not secret:
        return None
    if username == "<token>":
        return Login(refresh_token=secret, source=told(helper))
    return Login(username=username, password=secret, source=told(helper))


def told(source: Source) -> str:
    """A source in words, with file and line."""
    if isinstance(source, Helper):
        return f"docker-credential-{source.name} ({source.origin})"
    return source.source


def _hub(host: str) -> str:
    host = host.lower()
    return DEFAULT_REGISTRY if host in DOCKER_HOSTS else host


def _server(host: str) -> str:
    return _HUB_KEY if host == DEFAULT_REGISTRY else host


def _split(key: str) -> tuple[str, str]:
    """Host and path of an auth file's key; the `/v1/` that old clients wrote is no path."""
    text = key.strip().lower()
    text = text.partition("://")[2] or text
    host, _, path = text.partition("/")
    path = path.strip("/")
    return _hub(host), "" if path in ("v1", "v2") else path
