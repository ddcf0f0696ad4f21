"""Who gets which credentials, and what a challenge asks for; never a secret in a repr or a message."""

from __future__ import annotations

import base64

import pytest

from oci.errors import BadInput, Internal
from oci.registry_auth import (
    Challenge,
    Credentials,
    Login,
    TokenRequest,
    choose_challenge,
    login_for,
    parse_challenges,
    parse_token,
    token_request,
)

PAIR = base64.b64encode(b"ann:s3cret").decode()


@pytest.mark.parametrize(
    ("credentials", "registry", "endpoint", "expected"),
    [
        (None, "a.io", "a.io", None),
        (Credentials(), "a.io", "a.io", None),
        (Credentials(username="ann", password="s"), "a.io", "a.io", Login(username="ann", password="s")),
        (Credentials(auth=PAIR), "a.io", "a.io", Login(username="ann", password="s3cret")),
        (Credentials(identity_token="t"), "a.io", "a.io", Login(refresh_token="t")),
        (Credentials(registry_token="t"), "a.io", "a.io", Login(bearer="t")),
        (Credentials(username="ann", password="s", identity_token="t", auth=PAIR), "a.io", "a.io",
         Login(username="ann", password="s")),
        (Credentials(identity_token="t", auth=PAIR), "a.io", "a.io", Login(refresh_token="t")),
        # credentials without a server are for the registry of the reference, not for its mirrors
        (Credentials(username="ann", password="s"), "a.io", "mirror.io", None),
        (Credentials(username="ann", password="s", server_address="https://a.io/v1/"), "a.io", "a.io",
         Login(username="ann", password="s")),
        (Credentials(username="ann", password="s", server_address="b.io"), "a.io", "a.io", None),
        (Credentials(username="ann", password="s", server_address="a.io"), "a.io", "a.io:5000", None),
        (Credentials(username="ann", password="s", server_address="mirror.io"), "a.io", "mirror.io",
         Login(username="ann", password="s")),
        (Credentials(username="ann", password="s", server_address="https://index.docker.io/v1/"), "docker.io",
         "registry-1.docker.io", Login(username="ann", password="s")),
        (Credentials(username="ann", password="s", server_address="x@evil.io"), "a.io", "a.io", None),
        (Credentials(username="ann", password="s", server_address="a.io@evil.io"), "a.io", "a.io", None),
    ],
)  # fmt: skip
def test_credentials_go_to_the_host_that_they_are_for(
    credentials: Credentials | None, registry: str, endpoint: str, expected: Login | None
) -> None:
    assert login_for(credentials, registry=registry, endpoint=endpoint) == expected


def test_padding_after_the_password_of_auth_is_dropped() -> None:
    padded = base64.b64encode(b"ann:s3cret\0\0").decode()
    assert login_for(Credentials(auth=padded), registry="a", endpoint="a") == Login(
        username="ann", password="s3cret"
    )


@pytest.mark.parametrize(
    "auth", ["%%%", base64.b64encode(b"nocolon").decode(), base64.b64encode(b"\xff:x").decode()]
)
def test_a_damaged_auth_is_refused_without_being_quoted(auth: str) -> None:
    with pytest.raises(BadInput, match=r"^auth\.auth: ") as refused:
        login_for(Credentials(auth=auth), registry="a", endpoint="a")
    assert auth not in str(refused.value)


def test_no_value_shows_a_secret() -> None:
    shown = repr(
        [
            Credentials(password="SECRET1", auth="SECRET2", identity_token="SECRET3"),
            Credentials(registry_token="SECRET4"),
            Login(username="ann", password="SECRET5", refresh_token="SECRET6", bearer="SECRET7"),
            TokenRequest(method="POST", url="u", form="SECRET8", authorization="SECRET9"),
            parse_token(b'{"token": "SECRET0"}'),
        ]
    )  # fmt: skip
    assert "SECRET" not in shown


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            ('Bearer realm="https://auth.io/token",service="r.io",scope="repository:a/b:pull,push"',),
            (Challenge(scheme="bearer", parameters={
                "realm": "https://auth.io/token", "service": "r.io", "scope": "repository:a/b:pull,push"}),),
        ),
        (
            ('Basic realm="a \\"b\\"", Bearer realm=x , service=y',),
            (Challenge(scheme="basic", parameters={"realm": 'a "b"'}),
             Challenge(scheme="bearer", parameters={"realm": "x", "service": "y"})),
        ),
        (("BASIC",), (Challenge(scheme="basic"),)),
        (("Negotiate", "Basic realm=x"),
         (Challenge(scheme="negotiate"), Challenge(scheme="basic", parameters={"realm": "x"}))),
        (("",), ()),
        ((',, =,"',), ()),
    ],
)  # fmt: skip
def test_challenges_are_read_from_every_header_line(
    headers: tuple[str, ...], expected: tuple[Challenge, ...]
) -> None:
    assert parse_challenges(headers) == expected


def test_bearer_is_answered_before_basic_wherever_it_stands() -> None:
    found = parse_challenges(('Basic realm="a"', 'Bearer realm="https://t"'))
    assert choose_challenge(found) == Challenge(scheme="bearer", parameters={"realm": "https://t"})
    assert choose_challenge(parse_challenges(("Bearer service=x", "Basic"))) == Challenge(scheme="basic")
    assert choose_challenge(parse_challenges(("Negotiate",))) is None


def bearer(realm: str, **more: str) -> Challenge:
    return Challenge(scheme="bearer", parameters={"realm": realm, **more})


@pytest.mark.parametrize(
    ("challenge", "login", "expected"),
    [
        (bearer("https://t/x", service="r.io"), None,
         TokenRequest(method="GET", url="https://t/x?service=r.io&scope=repository%3Aa%2Fb%3Apull")),
        (bearer("https://t/x?y=1", scope="repository:z:pull"), Login(username="ann", password="s3cret"),
         TokenRequest(method="GET", url="https://t/x?y=1&scope=repository%3Az%3Apull",
                      authorization="Basic " + PAIR)),
        (bearer("https://t/x", service="r.io"), Login(refresh_token="t&1"),
         TokenRequest(method="POST", url="https://t/x", form=(
             "grant_type=refresh_token&refresh_token=t%261&client_id=crisp&service=r.io"
             "&scope=repository%3Aa%2Fb%3Apull"))),
    ],
)  # fmt: skip
def test_a_token_is_asked_for_as_the_login_allows(
    challenge: Challenge, login: Login | None, expected: TokenRequest
) -> None:
    assert token_request(challenge, login, repository="a/b", registry_scheme="https") == expected


def test_a_realm_without_tls_gets_no_login() -> None:
    login = Login(username="ann", password="s3cret")
    with pytest.raises(Internal, match="is not https; the credentials are not sent there") as refused:
        token_request(bearer("http://t/x"), login, repository="a", registry_scheme="https")
    assert "s3cret" not in str(refused.value)
    plain = token_request(bearer("http://t/x"), login, repository="a", registry_scheme="http")
    assert plain.authorization == login.basic
    assert (
        token_request(bearer("http://t/x"), None, repository="a", registry_scheme="https").authorization == ""
    )


@pytest.mark.parametrize("realm", ["ftp://t/x", "/x", "file:///etc/passwd", "https://"])
def test_a_realm_that_is_no_http_url_is_refused(realm: str) -> None:
    with pytest.raises(Internal, match="is not an http"):
        token_request(bearer(realm), None, repository="a", registry_scheme="https")


def test_a_token_has_a_lifetime_of_a_minute_unless_it_says_more() -> None:
    found = [
        parse_token(body)
        for body in (
            b'{"token": "a"}',
            b'{"access_token": "b", "expires_in": 300}',
            b'{"token": "c", "access_token": "d", "expires_in": null}',
        )
    ]
    assert [(token.value, token.lifetime) for token in found] == [("a", 60.0), ("b", 300.0), ("c", 60.0)]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"token": 7}', b'{"token": "x", "expires_in": "soon"}', b"SECRET"]
)
def test_an_answer_without_a_token_is_refused_without_being_quoted(body: bytes) -> None:
    with pytest.raises(Internal, match="token realm") as refused:
        parse_token(body)
    assert "SECRET" not in str(refused.value)
