"""Registry authentication, the deciding part: which login fits a host, what a challenge asks for.

Sources: RFC 9110 section 11 (challenges), the distribution specification's token authentication, CRI's
AuthConfig. No value of this module shows a secret in its repr.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

from oci.errors import BadInput, Internal

DOCKER_HOSTS = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """CRI's AuthConfig as it came; `login_for` says what of it is used, and for whom."""

    username: str = ""
    password: str = field(default="", repr=False)
    auth: str = field(default="", repr=False)  # base64 of "user:password"
    server_address: str = ""
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    @property
    def empty(self) -> bool:
        return not (self.username or self.auth or self.identity_token or self.registry_token)


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Exactly one of the three forms: user and password, a refresh token, a ready bearer token."""

    username: str = ""
    password: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)
    bearer: str = field(default="", repr=False)
    source: str = "request"  # where it came from, for `explain`; never the secret

    @property
    def basic(self) -> str:
        """The Authorization header of RFC 7617, or "" when this is no user and password."""
        if not self.username:
            return ""
        pair = f"{self.username}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """One challenge of a WWW-Authenticate header; `scheme` in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """How to ask the realm for a token. `form` (a POST body) or else a GET; `authorization` may be ""."""

    method: str
    url: str
    form: str = field(default="", repr=False)
    authorization: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    value: str = field(repr=False)
    lifetime: float  # seconds from the moment of its arrival


def address_host(address: str) -> str:
    """The host (with port) of an AuthConfig server_address: a URL, or a host with or without a path."""
    text = address.strip()
    parts = urlsplit(text if "://" in text else f"//{text}")
    return parts.netloc.rpartition("@")[2].lower()


def same_host(one: str, other: str) -> bool:
    """Whether two registry hosts are one place, Docker Hub's three names being one."""
    one, other = one.lower(), other.lower()
    return one == other or (one in DOCKER_HOSTS and other in DOCKER_HOSTS)


def login_for(credentials: Credentials | None, *, registry: str, endpoint: str) -> Login | None:
    """The login to use at `endpoint` (host with port) while pulling from `registry`, or None: anonymous.

    Credentials belong to the server they name, and to the reference's registry when they name none; a mirror
    never receives those of the registry it mirrors. Precedence: user and password, identity token, registry
    token, auth. Raises BadInput for an `auth` that is not base64 of user:password.
    """
    if credentials is None or credentials.empty:
        return None
    owner = address_host(credentials.server_address) if credentials.server_address else registry
    if not same_host(owner, endpoint):
        return None
    if credentials.username:
        return Login(username=credentials.username, password=credentials.password)
    if credentials.identity_token:
        return Login(refresh_token=credentials.identity_token)
    if credentials.registry_token:
        return Login(bearer=credentials.registry_token)
    username, password = decode_auth(credentials.auth)
    return Login(username=username, password=password)


def decode_auth(auth: str) -> tuple[str, str]:
    """User and password of a Docker style `auth` value; trailing NULs of the password are padding.

    Raises BadInput; the message never contains the value.
    """
    try:
        text = base64.b64decode(auth.strip(), validate=True).decode("utf-8")
    except (binascii.Error, ValueError) as failure:
        raise BadInput("auth.auth: not base64 of user:password") from failure
    username, colon, password = text.partition(":")
    if not colon:
        raise BadInput("auth.auth: no colon between user and password")
    return username, password.rstrip("\0")


_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


def parse_challenges(headers: tuple[str, ...]) -> tuple[Challenge, ...]:
    """The challenges of all WWW-Authenticate header lines, in order; what cannot be read ends the line."""
    found: list[Challenge] = []
    for header in headers:
        found.extend(_challenges_of(header))
    return tuple(found)


def _challenges_of(header: str) -> list[Challenge]:
    found: list[tuple[str, dict[str, str]]] = []
    position = 0
    while position < len(header):
        if header[position] in " \t,":
            position += 1
            continue
        word = _TOKEN.match(header, position)
        if word is None:
            break
        position = word.end()
        after = position
        while after < len(header) and header[after] in " \t":
            after += 1
        if found and header[after : after + 1] == "=" and header[after + 1 : after + 2] != "=":
            value, position = _value_at(header, after + 1)
            found[-1][1].setdefault(word.group().lower(), value)
        else:
            found.append((word.group().lower(), {}))
            # a token68 (RFC 9110 section 11.2) may follow the scheme; no registry scheme here uses one
    return [Challenge(scheme=scheme, parameters=parameters) for scheme, parameters in found]


def _value_at(header: str, position: int) -> tuple[str, int]:
    while position < len(header) and header[position] in " \t":
        position += 1
    quoted = _QUOTED.match(header, position)
    if quoted is not None:
        return re.sub(r"\\(.)", r"\1", quoted.group(1)), quoted.end()
    end = position
    while end < len(header) and header[end] not in ", \t":
        end += 1
    return header[position:end], end


def choose_challenge(challenges: tuple[Challenge, ...]) -> Challenge | None:
    """The challenge to answer: bearer with a realm before basic; None if neither is offered."""
    for challenge in challenges:
        if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
            return challenge
    return next((challenge for challenge in challenges if challenge.scheme == "basic"), None)


def token_request(
    challenge: Challenge, login: Login | None, *, repository: str, registry_scheme: str
) -> TokenRequest:
    """The request for a pull token of `repository` at the challenge's realm.

    A realm without TLS gets no login when the registry itself is asked over TLS: Internal is raised.
    """
    realm = challenge.parameters["realm"]
    parts = urlsplit(realm)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise Internal(f"token realm {realm[:200]!r} of the registry's challenge is not an http(s) URL")
    if parts.scheme == "http" and registry_scheme == "https" and login is not None:
        raise Internal(f"token realm {realm[:200]!r} is not https; the credentials are not sent there")
    query = {"service": challenge.parameters["service"]} if "service" in challenge.parameters else {}
    query["scope"] = challenge.parameters.get("scope") or f"repository:{repository}:pull"
    if login is not None and login.refresh_token:
        form = {"grant_type": "refresh_token", "refresh_token": login.refresh_token, "client_id": "crisp"}
        return TokenRequest(method="POST", url=realm, form=urlencode({**form, **query}))
    joint = "&" if parts.query else "?"
    url = f"{realm}{joint}{urlencode(query)}"
    return TokenRequest(method="GET", url=url, authorization=login.basic if login else "")


def parse_token(body: bytes) -> Token:
    """The token of a realm's answer (`token` or `access_token`, `expires_in` seconds, 60 when not said).

    Raises Internal without quoting the body.
    """
    try:
        answer = json.loads(body)
        value = answer.get("token") or answer.get("access_token")
        lifetime = float(answer.get("expires_in") or 60)
    except (ValueError, TypeError, AttributeError) as failure:
        raise Internal("the token realm's answer is not the JSON object that was expected") from failure
    if not isinstance(value, str) or not value:
        raise Internal("the token realm's answer has neither token nor access_token")
    return Token(value=value, lifetime=max(lifetime, 1.0))
