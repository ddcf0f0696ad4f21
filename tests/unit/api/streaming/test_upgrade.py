"""From a request's bytes to what will be spoken, or to the refusal."""

from __future__ import annotations

import pytest

from api.streaming.tokens import LIFE, LIMIT, Tokens, new_token
from api.streaming.upgrade import (
    MAX_HEAD,
    Head,
    Kind,
    Refusal,
    Request,
    Spdy,
    WebSocket,
    forward_version,
    negotiate,
    target,
)
from oci.errors import Full

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455, 1.3


def head(*lines: str, method: str = "POST", path: str = "/exec/token") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


SPDY_LINES = ("Connection: Upgrade", "Upgrade: SPDY/3.1")
WEB_LINES = (
    "Connection: keep-alive, Upgrade",
    "Upgrade: WebSocket",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {KEY}",
)


def read(data: bytes) -> Request | Refusal | None:
    """What a head is, told alike whole and byte by byte."""
    bytewise, answer = Head(), None
    for byte in data:
        answer = bytewise.receive(bytes([byte]))
        if answer is not None:
            break
    whole = Head().receive(data)
    assert type(whole) is type(answer)
    if isinstance(whole, Request):
        assert whole == answer
    return whole


def spoken(data: bytes, kind: Kind = Kind.EXEC) -> object:
    request = read(data)
    assert isinstance(request, Request), request
    return negotiate(request, kind)


def status(found: object) -> int:
    assert isinstance(found, Refusal), found
    return found.status


@pytest.mark.parametrize(
    ("offered", "taken"),
    [
        (["v4.channel.k8s.io"], "v4.channel.k8s.io"),
        (["v5.channel.k8s.io", "v3.channel.k8s.io"], "v3.channel.k8s.io"),
        (["v5.channel.k8s.io, v2.channel.k8s.io,v4.channel.k8s.io"], "v2.channel.k8s.io"),
        (["channel.k8s.io"], "channel.k8s.io"),
    ],
)
def test_the_first_offer_that_is_known_is_spoken(offered: list[str], taken: str) -> None:
    lines = [f"X-Stream-Protocol-Version: {names}" for names in offered]
    assert spoken(head(*SPDY_LINES, *lines)) == Spdy(protocol=taken)


def test_what_is_no_upgrade_is_refused_with_the_published_codes() -> None:
    known = "X-Stream-Protocol-Version: v4.channel.k8s.io"
    assert {
        "no protocol": status(spoken(head(*SPDY_LINES))),
        "unknown": status(spoken(head(*SPDY_LINES, "X-Stream-Protocol-Version: v9"))),
        "no upgrade": status(spoken(head(known))),
        "another upgrade": status(spoken(head("Connection: Upgrade", "Upgrade: h2c", known))),
        "exec's for a port": status(spoken(head(*SPDY_LINES, known), Kind.FORWARD)),
    } == {
        "no protocol": 400,
        "unknown": 403,
        "no upgrade": 400,
        "another upgrade": 400,
        "exec's for a port": 403,
    }
    unknown = spoken(head(*SPDY_LINES, "X-Stream-Protocol-Version: v9"))
    assert isinstance(unknown, Refusal)
    assert unknown.headers[0] == ("X-Accepted-Stream-Protocol-Versions", "v4.channel.k8s.io")


@pytest.mark.parametrize(
    ("kind", "offered", "taken"),
    [
        (Kind.EXEC, "v5.channel.k8s.io,v4.channel.k8s.io", "v5.channel.k8s.io"),
        (Kind.ATTACH, "unknown, base64.channel.k8s.io", "base64.channel.k8s.io"),
        (Kind.EXEC, "", ""),
        (Kind.FORWARD, "SPDY/3.1+portforward.k8s.io", "SPDY/3.1+portforward.k8s.io"),
        (Kind.FORWARD, "v4.base64.channel.k8s.io", "v4.base64.channel.k8s.io"),
        (Kind.FORWARD, "", ""),
    ],
)
def test_websocket_protocols_are_chosen_alike(kind: Kind, offered: str, taken: str) -> None:
    lines = [f"Sec-WebSocket-Protocol: {offered}"] if offered else []
    assert spoken(head(*WEB_LINES, *lines, method="GET"), kind) == WebSocket(protocol=taken, key=KEY)


def test_websockets_that_cannot_be_are_refused() -> None:
    no_key = [line for line in WEB_LINES if "Key" not in line]
    old = [line.replace("13", "8") for line in WEB_LINES]
    assert {
        "POST": status(spoken(head(*WEB_LINES))),
        "no key": status(spoken(head(*no_key, method="GET"))),
        "short key": status(spoken(head(*no_key, "Sec-WebSocket-Key: YQ==", method="GET"))),
        "old": status(spoken(head(*old, method="GET"))),
        "unknown": status(spoken(head(*WEB_LINES, "Sec-WebSocket-Protocol: v9", method="GET"))),
    } == {"POST": 405, "no key": 400, "short key": 400, "old": 426, "unknown": 403}


def test_a_tunnel_has_no_channels_and_the_old_protocols_have() -> None:
    assert forward_version("SPDY/3.1+portforward.k8s.io") is None
    old = forward_version("v4.base64.channel.k8s.io")
    assert old is not None
    assert old.base64


def test_paths_name_a_kind_and_a_token() -> None:
    def named(path: str, method: str = "POST") -> object:
        found = target(Request(method=method, target=path, headers=()))
        return found.status if isinstance(found, Refusal) else found

    assert named("/exec/abc") == (Kind.EXEC, "abc")
    assert named("/attach/abc?x=y", "GET") == (Kind.ATTACH, "abc")
    assert named("/portforward/abc") == (Kind.FORWARD, "abc")
    assert [named(p) for p in ("/", "/exec", "/exec/", "/exec/a/b", "/run/a", "exec/a", "*")] == [404] * 7
    assert named("/exec/abc", "PUT") == 405


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (head("Content-Length: 3"), 400),
        (head("Transfer-Encoding: chunked"), 400),
        (head("Bad Header: x"), 400),
    ],
)
def test_what_is_no_request_for_an_upgrade_is_refused(data: bytes, code: int) -> None:
    core = Head()
    found = core.receive(data)
    assert status(found) == code
    assert isinstance(found, Refusal)
    assert core.refuse(found).startswith(f"HTTP/1.1 {code} ".encode())


def test_an_endless_head_is_cut_off() -> None:
    core, found = Head(), None
    for _ in range(MAX_HEAD // 100 + 10):
        found = core.receive(b"GET /exec/" + b"x" * 100)
        if found is not None:
            break
    assert status(found) == 431
    assert isinstance(found, Refusal)
    assert core.refuse(found).startswith(b"HTTP/1.1 431 ")


def test_a_head_that_is_not_whole_is_waited_for() -> None:
    core = Head()
    assert core.receive(head(*SPDY_LINES)[:-1]) is None
    assert isinstance(core.receive(b"\n"), Request)


def test_the_answers_are_what_the_standards_say() -> None:
    core = Head()
    core.receive(head(*WEB_LINES, method="GET") + b"first bytes")
    answer = core.accept(WebSocket(protocol="v5.channel.k8s.io", key=KEY))
    assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer  # RFC 6455, 1.3
    assert b"Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n" in answer
    assert core.rest() == b"first bytes"
    spdy = Head()
    spdy.receive(head(*SPDY_LINES))
    answer = spdy.accept(Spdy(protocol="v4.channel.k8s.io"))
    assert b"Upgrade: SPDY/3.1\r\n" in answer
    assert b"X-Stream-Protocol-Version: v4.channel.k8s.io\r\n" in answer


# Tokens.


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_token_is_for_one_request_of_its_kind_once() -> None:
    tokens: Tokens[str] = Tokens(now=Clock())
    token = tokens.issue(Kind.EXEC, "request")
    assert tokens.claim(Kind.ATTACH, token) is None
    assert tokens.claim(Kind.EXEC, token[:-1]) is None
    assert tokens.known(Kind.EXEC, token)
    assert tokens.claim(Kind.EXEC, token) == "request"
    assert tokens.claim(Kind.EXEC, token) is None


def test_a_token_is_good_for_a_minute() -> None:
    clock = Clock()
    tokens: Tokens[str] = Tokens(now=clock)
    first = tokens.issue(Kind.EXEC, "first")
    clock.now = LIFE - 1
    second = tokens.issue(Kind.EXEC, "second")
    clock.now = LIFE
    assert (tokens.claim(Kind.EXEC, first), tokens.claim(Kind.EXEC, second)) == (None, "second")
    assert len(tokens) == 0


def test_only_so_many_may_wait() -> None:
    clock = Clock()
    tokens: Tokens[int] = Tokens(now=clock)
    for number in range(LIMIT):
        tokens.issue(Kind.EXEC, number)
    with pytest.raises(Full, match="1000 URLs wait"):
        tokens.issue(Kind.EXEC, LIMIT)
    clock.now = LIFE
    tokens.issue(Kind.EXEC, LIMIT)
    assert len(tokens) == 1


def test_tokens_are_long_and_fit_into_a_path() -> None:
    made = {new_token() for _ in range(100)}
    assert len(made) == 100
    assert all(len(token) == 22 and token.replace("-", "").replace("_", "").isalnum() for token in made)
