"""What answers mean: status codes, Retry-After, ranges, redirects, proxies."""

from __future__ import annotations

import pytest

from oci.errors import Internal
from oci.registry_transfer import (
    Hop,
    Verdict,
    continues_at,
    follow,
    is_loopback,
    judge,
    proxy_for,
    rate_limit,
    registry_words,
    retry_after,
    shown_url,
    wait_before,
)


def test_each_status_has_a_meaning() -> None:
    assert {
        status: judge(status) for status in (200, 206, 307, 401, 403, 404, 410, 400, 418, 429, 500, 503)
    } == {
        200: Verdict.GOOD,
        206: Verdict.GOOD,
        307: Verdict.REDIRECT,
        401: Verdict.CHALLENGE,
        403: Verdict.DENIED,
        404: Verdict.ABSENT,
        410: Verdict.ABSENT,
        400: Verdict.REFUSED,
        418: Verdict.REFUSED,
        429: Verdict.TRANSIENT,
        500: Verdict.TRANSIENT,
        503: Verdict.TRANSIENT,
    }


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0.0),
        ("soon", None),
        ("", None),
        ("-5", None),
        ("99999999999999", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, seconds: float | None) -> None:
    assert retry_after(text, now=10.0) == seconds


@pytest.mark.parametrize(
    ("attempt", "asked", "expected"),
    [
        (0, None, 0.5), (1, None, 1.0), (2, None, 2.0), (3, None, None),
        (0, 7.0, 7.0), (0, 31.0, None), (3, 1.0, None),
    ],
)  # fmt: skip
def test_waits_double_and_end(attempt: int, asked: float | None, expected: float | None) -> None:
    assert wait_before(attempt, asked=asked, retries=3, backoff=0.5, longest=30.0) == expected


@pytest.mark.parametrize(
    ("status", "header", "skip"),
    [
        (206, "bytes 100-199/200", 0),
        (206, "bytes 40-199/200", 60),
        (206, "BYTES 100-199/*", 0),
        (200, "", 100),
    ],
)
def test_a_partial_answer_continues_where_it_says(status: int, header: str, skip: int) -> None:
    assert continues_at(status, header, offset=100) == skip


@pytest.mark.parametrize("header", ["", "bytes 101-199/200", "items 100-199/200", "bytes 100-199/200 x"])
def test_a_partial_answer_of_another_place_is_refused(header: str) -> None:
    with pytest.raises(Internal, match="byte 100 was asked for"):
        continues_at(206, header, offset=100)


@pytest.mark.parametrize(
    ("current", "location", "hop"),
    [
        ("https://r.io/v2/a", "/v2/b", Hop(url="https://r.io/v2/b", trusted=True)),
        ("https://r.io/v2/a", "https://r.io:443/v2/b", Hop(url="https://r.io:443/v2/b", trusted=True)),
        ("https://r.io/v2/a", "https://R.io/v2/b", Hop(url="https://R.io/v2/b", trusted=True)),
        ("https://r.io/v2/a", "http://r.io/v2/b", Hop(url="http://r.io/v2/b", trusted=False)),
        ("https://r.io/v2/a", "https://r.io:8443/b", Hop(url="https://r.io:8443/b", trusted=False)),
        ("https://r.io/v2/a", "//s3.io/b?sig=1", Hop(url="https://s3.io/b?sig=1", trusted=False)),
        ("https://s3.io/b", "https://r.io/c", Hop(url="https://r.io/c", trusted=True)),
    ],
)
def test_only_the_first_origin_is_trusted_after_a_redirect(current: str, location: str, hop: Hop) -> None:
    assert follow("https://r.io/v2/a", current, location) == hop


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://a/b", "https://u:p@h/x", "https://h:0/x", "http://h:99999/"]
)
def test_a_redirect_to_no_http_place_is_refused(location: str) -> None:
    with pytest.raises(Internal, match="redirect to"):
        follow("https://r.io/a", "https://r.io/a", location)


def test_a_url_is_shown_without_what_could_be_secret() -> None:
    assert shown_url("https://user:pass@h:1/p?X-Amz-Signature=abc#f") == "https://h:1/p"


def test_the_registrys_words_are_short_and_one_line() -> None:
    body = b'{"errors": [{"code": "DENIED", "message": "no\\n access"}, {"code": "X"}]}'
    assert registry_words(body) == "DENIED no access; X"
    assert [
        registry_words(body) for body in (b"<html>", b"[]", b'{"errors": 1}', b'{"errors": [1]}', b"")
    ] == [""] * 5
    assert len(registry_words(b'{"errors": [{"message": "' + b"x" * 5000 + b'"}]}')) == 300


@pytest.mark.parametrize(
    ("url", "environment", "proxy"),
    [
        ("https://r.io/x", {}, ""),
        ("https://r.io/x", {"HTTPS_PROXY": "http://p:3128"}, "http://p:3128"),
        ("https://r.io/x", {"HTTPS_PROXY": "p:3128"}, "http://p:3128"),
        ("https://r.io/x", {"HTTP_PROXY": "http://p:3128"}, ""),
        ("http://r.io/x", {"http_proxy": "http://low", "HTTP_PROXY": "http://up"}, "http://low"),
        ("https://r.io/x", {"ALL_PROXY": "http://p"}, "http://p"),
        ("https://r.io/x", {"HTTPS_PROXY": "http://p", "NO_PROXY": "r.io"}, ""),
        ("https://a.r.io/x", {"HTTPS_PROXY": "http://p", "NO_PROXY": ".r.io"}, ""),
        ("https://a.r.io/x", {"HTTPS_PROXY": "http://p", "NO_PROXY": "*.r.io"}, ""),
        ("https://bar.io/x", {"HTTPS_PROXY": "http://p", "NO_PROXY": "r.io"}, "http://p"),
        ("https://r.io:8443/x", {"HTTPS_PROXY": "http://p", "NO_PROXY": "r.io:443"}, "http://p"),
        ("https://r.io/x", {"HTTPS_PROXY": "http://p", "NO_PROXY": "q.io, *"}, ""),
        ("https://10.1.2.3/x", {"HTTPS_PROXY": "http://p", "NO_PROXY": "10.0.0.0/8"}, ""),
        ("https://11.1.2.3/x", {"HTTPS_PROXY": "http://p", "NO_PROXY": "10.0.0.0/8"}, "http://p"),
        ("https://[fd00::1]/x", {"HTTPS_PROXY": "http://p", "no_proxy": "fd00::/8"}, ""),
        ("http://localhost:5000/x", {"HTTP_PROXY": "http://p"}, ""),
        ("http://127.0.0.1:5000/x", {"HTTP_PROXY": "http://p"}, ""),
    ],
)  # fmt: skip
def test_the_proxy_is_chosen_by_scheme_and_exceptions(
    url: str, environment: dict[str, str], proxy: str
) -> None:
    assert proxy_for(url, environment) == proxy


def test_loopback_is_known_by_name_and_address() -> None:
    hosts = (
        "localhost",
        "a.localhost",
        "127.9.9.9",
        "::1",
        "[::1]",
        "localhost.evil.io",
        "128.0.0.1",
        "r.io",
    )
    assert [is_loopback(host) for host in hosts] == [True] * 5 + [False] * 3


@pytest.mark.parametrize(
    ("text", "words"),
    [("100;w=21600", "100 in 6 h"), (" 5;w=90 ", "5 in 90 s"), ("5;w=0", "5 in 0 s"), ("100", ""), ("", "")],
)
def test_a_rate_limit_is_told_in_words(text: str, words: str) -> None:
    assert rate_limit(text) == words
