"""Decisions of a transfer from a registry: what an answer means, when to try again, where to go on.

Pure: status codes, header texts and the clock come in, a decision goes out. Sources: RFC 9110 (Retry-After,
Content-Range, redirects), the distribution specification's error body.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum
from urllib.parse import urljoin, urlsplit

from oci.errors import Internal

REDIRECTS = frozenset({301, 302, 303, 307, 308})
MAXIMUM_REDIRECTS = 10
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})


class Verdict(Enum):
    """What an answer's status means for a GET or HEAD."""

    GOOD = "good"
    REDIRECT = "redirect"
    CHALLENGE = "challenge"  # 401: get a token or give up
    ABSENT = "absent"
    DENIED = "denied"
    TRANSIENT = "transient"  # worth another try later
    REFUSED = "refused"


def judge(status: int) -> Verdict:
    """The meaning of a status code."""
    if status in (200, 206):
        return Verdict.GOOD
    if status in REDIRECTS:
        return Verdict.REDIRECT
    if status == 401:
        return Verdict.CHALLENGE
    if status == 403:
        return Verdict.DENIED
    if status in (404, 410):
        return Verdict.ABSENT
    if status in _TRANSIENT:
        return Verdict.TRANSIENT
    return Verdict.REFUSED


def retry_after(text: str, *, now: float) -> float | None:
    """Seconds that a Retry-After header asks for (a number or a date), None when it cannot be read.

    `now` is seconds since the Unix epoch.
    """
    text = text.strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
        return max(moment.timestamp() - now, 0.0)
    except (ValueError, TypeError, OverflowError):
        return None


def rate_limit(text: str) -> str:
    """Docker Hub's RateLimit-Limit ("100;w=21600") in words, "" for what cannot be read."""
    match = re.fullmatch(r"(\d{1,9});w=(\d{1,9})", text.strip())
    if match is None:
        return ""
    seconds = int(match[2])
    span = f"{seconds // 3600} h" if seconds and seconds % 3600 == 0 else f"{seconds} s"
    return f"{match[1]} in {span}"


def wait_before(
    attempt: int, *, asked: float | None, retries: int, backoff: float, longest: float, jitter: float = 0.0
) -> float | None:
    """Seconds to wait before try number `attempt` + 1 (the first try is 0), or None: give up.

    A Retry-After (`asked`) is honoured and ends the attempts when it is longer than `longest`; `jitter` in
    [0, 1) spreads clients that were refused together.
    """
    if attempt >= retries:
        return None
    if asked is not None:
        return asked if asked <= longest else None
    return min(backoff * 2.0**attempt * (1.0 + jitter), longest)


def continues_at(status: int, content_range: str, *, offset: int) -> int:
    """How many bytes of the answer's body lie before `offset`, the position that was asked for.

    0 for a right partial answer; `offset` for a server that ignored Range and begins again. Raises Internal
    for a partial answer of another place.
    """
    if status != 206:
        return offset
    match = re.match(
        r"bytes\s+(\d{1,19})-(\d{1,19})/(?:\d{1,19}|\*)\s*\Z", content_range.strip(), re.IGNORECASE
    )
    if match is None or int(match.group(1)) > offset:
        raise Internal(f"answer 206 with Content-Range {content_range[:80]!r}, byte {offset} was asked for")
    return offset - int(match.group(1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """Where a redirect leads, and whether the request's Authorization and own headers may go along."""

    url: str
    trusted: bool


def follow(origin: str, current: str, location: str) -> Hop:
    """The next request of a redirect. Only the very origin (scheme, host, port) that was logged in at is

    trusted with its headers again. Raises Internal for what is no http(s) URL.
    """
    target = urljoin(current, location)
    parts = urlsplit(target)
    try:
        usable = (
            parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port)
        )
    except ValueError:
        usable = False
    if not usable:
        raise Internal(f"redirect to {shown_url(target)!r}, which is no http(s) URL")
    if parts.username is not None or parts.password is not None:
        raise Internal(f"redirect to {shown_url(target)!r} carries a user name")
    return Hop(url=target, trusted=_origin(origin) == _origin(target))


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return (
        parts.scheme,
        (parts.hostname or "").lower(),
        parts.port or (443 if parts.scheme == "https" else 80),
    )


def shown_url(url: str) -> str:
    """A URL for messages: without user, query and fragment, where secrets (signatures) live."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"[:300]


def registry_words(body: bytes) -> str:
    """The registry's own words in an error body, one line, short; "" when there are none to show."""
    try:
        document = json.loads(body)
        entries = document["errors"]
        words = "; ".join(
            " ".join(str(entry[key]) for key in ("code", "message") if entry.get(key))
            for entry in entries[:3]
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return ""
    return " ".join(words.split())[:300]


def proxy_for(url: str, environment: Mapping[str, str]) -> str:
    """The proxy URL for a request, from HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY; "" for none.

    Lower-case names win over upper-case ones. Loopback is never asked for through a proxy.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if is_loopback(host) or _excluded(host, port, _variable(environment, "no_proxy")):
        return ""
    proxy = _variable(environment, f"{parts.scheme}_proxy") or _variable(environment, "all_proxy")
    return proxy if "://" in proxy or not proxy else f"http://{proxy}"


def _variable(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name) or environment.get(name.upper()) or ""


def is_loopback(host: str) -> bool:
    """Whether a host name (without port) is this machine by definition."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _excluded(host: str, port: int, no_proxy: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    for word in no_proxy.replace(",", " ").lower().split():
        if word == "*":
            return True
        if address is not None:
            try:
                if address in ipaddress.ip_network(word, strict=False):
                    return True
                continue
            except ValueError:
                pass
        name, colon, number = word.partition(":")
        if colon and number.isdigit() and int(number) != port:
            continue
        name = name.removeprefix("*").removeprefix(".")
        if name and (host == name or host.endswith(f".{name}")):
            return True
    return False
