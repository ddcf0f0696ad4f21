"""Logins, tokens, mirrors, redirects, TLS and proxies: who is asked, and who never sees a credential."""

from __future__ import annotations

import base64
import logging
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from oci.errors import BadInput, Busy, Internal
from oci.registry_auth import Credentials
from tests.component.images.rig import content, failure, opened, run
from tests.doubles import registry
from tests.doubles.registry import (
    Answer,
    Registry,
    Request,
    basic,
    bearer,
    error,
    failing,
    redirecting,
    tar_of,
)

ONE = tar_of({"one": b"1"})
TWO = tar_of({"two": b"2"})
ANN = Credentials(username="ann", password="PASSWORD")
PAIR = "Basic " + base64.b64encode(b"ann:PASSWORD").decode()


class Tokens:
    """A token service: gives numbered tokens for a login, and says which are still good."""

    def __init__(self, double: Registry, *, login: str = PAIR) -> None:
        self.given: list[str] = []
        self.spent: set[str] = set()
        self._login = login
        self._lock = threading.Lock()
        double.on("/token", self._give, methods=("GET", "POST"))
        double.on("/v2/", bearer(f"{double.url}/token", self.good), methods=("GET", "HEAD"))

    def good(self, token: str) -> bool:
        return token in self.given and token not in self.spent

    def _give(self, request: Request, _right: Answer) -> Answer:
        shown = request.headers.get("authorization", "") or request.body.decode()
        if shown != self._login:
            return error(401, "UNAUTHORIZED")
        with self._lock:
            self.given.append(f"TOKEN{len(self.given)}")
            return Answer(body=f'{{"token": "{self.given[-1]}", "expires_in": 60}}'.encode())


def hosts(directory: Path, registry_name: str, text: str) -> Path:
    (directory / registry_name).mkdir(parents=True)
    (directory / registry_name / "hosts.toml").write_text(text)
    return directory


def test_a_bearer_token_is_fetched_once_for_a_pull(double: Registry, home: Path) -> None:
    double.push("app", "1", [ONE, TWO])
    tokens = Tokens(double)

    async def story() -> None:
        async with opened(home) as store:
            record = await store.pull(double.reference("app:1"), ANN)
            assert record.tags == (double.reference("app:1"),)
            assert tokens.given == ["TOKEN0"]
            (asked,) = double.asked("/token")[-1:]
            assert asked.query == {"service": ["double"], "scope": ["repository:app:pull"]}

    run(story)


def test_a_public_image_needs_an_anonymous_token(double: Registry, home: Path) -> None:
    double.push("app", "1", [ONE])
    Tokens(double, login="")

    async def story() -> None:
        async with opened(home) as store:
            assert (await store.pull(double.reference("app:1"))).tags == (double.reference("app:1"),)

    run(story)


def test_an_identity_token_is_posted_to_the_realm(double: Registry, home: Path) -> None:
    double.push("app", "1", [ONE])
    form = (
        "grant_type=refresh_token&refresh_token=IDENTITY&client_id=crisp&service=double"
        "&scope=repository%3Aapp%3Apull"
    )
    tokens = Tokens(double, login=form)

    async def story() -> None:
        async with opened(home) as store:
            await store.pull(double.reference("app:1"), Credentials(identity_token="IDENTITY"))
            assert [request.method for request in double.asked("/token")] == ["POST"]
            assert tokens.given == ["TOKEN0"]

    run(story)


def test_a_token_that_expires_in_mid_pull_is_renewed(double: Registry, home: Path) -> None:
    pushed = double.push("app", "1", [ONE, TWO])
    tokens = Tokens(double)

    def spend(_request: Request, _right: Answer) -> Answer:
        tokens.spent.update(tokens.given)
        return error(
            401, "UNAUTHORIZED", WWW_Authenticate=f'Bearer realm="{double.url}/token",service="double"'
        )

    double.rules.insert(0, registry.Rule(pattern=f"blobs/{pushed.layers[1]}", react=spend, times=1))

    async def story() -> None:
        async with opened(home) as store:
            assert (await store.pull(double.reference("app:1"), ANN)).id == pushed.config
            assert tokens.given == ["TOKEN0", "TOKEN1"]

    run(story)


def test_a_registry_with_basic_authentication(double: Registry, home: Path) -> None:
    double.push("app", "1", [ONE])
    double.on("/v2/", basic("ann", "PASSWORD"), methods=("GET", "HEAD"))

    async def story() -> None:
        async with opened(home) as store:
            assert await store.pull(double.reference("app:1"), ANN)
            auth = base64.b64encode(b"ann:PASSWORD").decode()
            assert await store.pull(double.reference("app:1"), Credentials(auth=auth))
            refused = await failure(
                store.pull(double.reference("app:1"), Credentials(username="ann", password="X"))
            )
            assert isinstance(refused, BadInput)
            assert "refused the credentials" in refused.message

    run(story)


def test_an_image_that_is_there_is_not_given_to_who_may_not_pull_it(double: Registry, home: Path) -> None:
    double.push("app", "1", [ONE])
    double.on("/v2/", basic("ann", "PASSWORD"), methods=("GET", "HEAD"))

    async def story() -> None:
        async with opened(home) as store:
            await store.pull(double.reference("app:1"), ANN)
            for other in (None, Credentials(username="bob", password="x")):
                assert isinstance(await failure(store.pull(double.reference("app:1"), other)), BadInput)

    run(story)


def test_credentials_for_another_server_are_not_used(double: Registry, home: Path) -> None:
    double.push("app", "1", [ONE])

    async def story() -> None:
        async with opened(home) as store:
            for server in ("other.example", "https://other.example/v1/", f"{double.address}@other.example"):
                credentials = Credentials(username="ann", password="PASSWORD", server_address=server)
                await store.pull(double.reference("app:1"), credentials)
                Tokens(double)
                assert isinstance(await failure(store.pull(double.reference("app:1"), credentials)), BadInput)
                double.rules.clear()
            assert [request for request in double.requests if "authorization" in request.headers] == []

    run(story)


def test_a_redirect_to_storage_gets_no_credential(double: Registry, home: Path) -> None:
    pushed = double.push("app", "1", [ONE])
    Tokens(double)
    with registry.serving(host="127.0.0.2") as storage:
        storage.blobs = double.blobs
        double.rules.insert(0, registry.Rule(pattern="blobs/", react=redirecting(storage.url)))

        async def story() -> None:
            async with opened(home) as store:
                assert (await store.pull(double.reference("app:1"), ANN)).id == pushed.config

        run(story)
        assert [(request.query, "authorization" in request.headers) for request in storage.requests] == [
            ({"X-Signature": ["SIGNED"]}, False)
        ] * 2


def test_storage_that_asks_for_a_password_gets_none(double: Registry, home: Path) -> None:
    double.push("app", "1", [ONE])
    double.on("blobs/", redirecting("PLACE"))
    with registry.serving(host="127.0.0.2") as thief:
        thief.on("/v2/", basic("ann", "PASSWORD"))
        double.rules[0].react = redirecting(thief.url)

        async def story() -> None:
            async with opened(home) as store:
                assert isinstance(await failure(store.pull(double.reference("app:1"), ANN)), BadInput)

        run(story)
        assert [request for request in thief.requests if "authorization" in request.headers] == []


def test_redirects_that_never_end_are_ended(double: Registry, home: Path) -> None:
    double.on("manifests", redirecting(double.url))

    async def story() -> None:
        async with opened(home) as store:
            found = await failure(store.pull(double.reference("app:1")))
            assert isinstance(found, Internal)
            assert "more than 10 redirects" in found.message
            assert "SIGNED" not in found.message

    run(story)


def test_no_secret_is_in_any_error_or_log(
    double: Registry, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    double.push("app", "1", [ONE])
    Tokens(double)
    caplog.set_level(logging.DEBUG)
    secrets = Credentials(username="ann", password="PASSWORD", identity_token="IDENTITY", auth="AUTHAUTH")

    async def story() -> None:
        said = []
        async with opened(home) as store:
            await store.pull(double.reference("app:1"), secrets)
            double.on("/v2/app/blobs", redirecting("http://127.0.0.3:1"))
            double.rules.insert(0, double.rules.pop())
            await store.remove(double.reference("app:1"))
            said.append(str(await failure(store.pull(double.reference("app:1"), secrets))))
            double.rules.clear()
            double.on("/v2/", failing(403))
            said.append(str(await failure(store.pull(double.reference("app:1"), secrets))))
            double.rules.clear()
            double.on("/v2/", bearer("http://127.0.0.3:1/token?key=KEYKEY", lambda _: False))
            said.append(str(await failure(store.pull(double.reference("app:1"), secrets))))
            said += await store.explain(double.reference("app:1"), secrets)
        text = "\n".join([*said, caplog.text])
        for secret in ("PASSWORD", "IDENTITY", "AUTHAUTH", "TOKEN", "SIGNED", "KEYKEY", PAIR[6:]):
            assert secret not in text

    run(story)


def test_mirrors_are_asked_in_order_and_only_ours_sees_the_password(double: Registry, home: Path) -> None:
    pushed = double.push("lib/app", "1", [ONE, TWO])
    with registry.serving() as dead, registry.serving() as empty, registry.serving() as partial:
        dead.on("/v2/", failing(500))
        partial.manifests = double.manifests
        partial.blobs = {pushed.config: double.blobs[pushed.config]}
        partial.blobs[pushed.layers[0]] = double.blobs[pushed.layers[0]]
        certs = hosts(
            home.parent / "certs",
            "registry.example",
            f'server = "{double.url}"\n[host."{dead.url}"]\n[host."{empty.url}"]\n[host."{partial.url}"]\n'
            '[host."' + partial.url + '".header]\nx-mirror = "yes"\n',
        )

        async def story() -> None:
            async with opened(home, registry_dirs=(home.parent / "none", certs)) as store:
                record = await store.pull("registry.example/lib/app:1", ANN)
                assert (record.id, record.tags) == (pushed.config, ("registry.example/lib/app:1",))
                assert record.digests == (f"registry.example/lib/app@{pushed.manifest}",)

        run(story)
        asked = [f"blobs/{pushed.layers[1]}"]
        assert [request.path for request in double.requests] == [f"/v2/lib/app/{path}" for path in asked]
        assert {request.headers.get("x-mirror") for request in partial.requests} == {"yes"}
        assert {tuple(request.query.get("ns", [])) for request in partial.requests} == {("registry.example",)}
        everyone = [*dead.requests, *empty.requests, *partial.requests, *double.requests]
        assert [request for request in everyone if "authorization" in request.headers] == []


def test_a_mirror_that_lies_is_passed_over(double: Registry, home: Path) -> None:
    pushed = double.push("app", "1", [ONE])
    with registry.serving() as liar:
        liar.manifests = double.manifests
        liar.blobs = {**double.blobs, pushed.layers[0]: b"x" * len(double.blobs[pushed.layers[0]])}
        certs = hosts(home.parent / "certs", "r.example", f'server = "{double.url}"\n[host."{liar.url}"]\n')

        async def story() -> None:
            async with opened(home, registry_dirs=(certs,)) as store:
                assert (await store.pull("r.example/app:1")).id == pushed.config
            assert len(liar.asked(pushed.layers[0])) == 1

        run(story)


def test_the_mirrors_of_all_registries_stand_in_default(double: Registry, home: Path) -> None:
    pushed = double.push("library/app", "1", [ONE])
    certs = hosts(home.parent / "certs", "_default", f'[host."{double.url}"]\n')

    async def story() -> None:
        async with opened(home, registry_dirs=(certs,)) as store:
            assert (await store.pull("app:1")).id == pushed.config
            *said, policy = await store.explain("app:1", ANN)
            assert policy == "signature policy: AcceptAnything (no policy is configured)"
            assert tuple(said) == (
                "docker.io/library/app:1 is asked for at 2 endpoint(s), in this order:",
                f"1. {double.url}/v2/library/app [resolve, pull], mirror, anonymous"
                f" ({certs}/_default/hosts.toml:1)",
                "2. https://registry-1.docker.io/v2/library/app [resolve, pull], registry,"
                " credentials of the request (default)",
                f"hosts.toml for all registries decides ({certs}/_default/hosts.toml:1)",
            )

    run(story)


def test_a_changed_configuration_holds_for_the_next_pull(double: Registry, home: Path) -> None:
    double.push("app", "1", [ONE])
    certs = hosts(home.parent / "certs", "r.example", 'server = "http://127.0.0.1:1"\n')

    async def story() -> None:
        async with opened(home, registry_dirs=(certs,)) as store:
            assert isinstance(await failure(store.pull("r.example/app:1")), Busy)
            (certs / "r.example/hosts.toml").write_text(f'server = "{double.url}"\n')
            assert await store.pull("r.example/app:1")
            (certs / "r.example/hosts.toml").write_text("server = 5\n")
            broken = await failure(store.pull("r.example/app:1"))
            assert str(broken) == f"{certs}/r.example/hosts.toml:1: server: must be text, not the integer 5"

    run(story)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private authority with a server's and a client's certificate: ca.pem, server.pem, client.pem."""
    top = tmp_path_factory.mktemp("authority")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=top, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(
        "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority", "-days", "2"
    )
    for name in ("server", "client"):
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (top / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", "2", "-extfile", "names", "-out", f"{name}.crt",
        )  # fmt: skip
        (top / f"{name}.pem").write_text(
            (top / f"{name}.crt").read_text() + (top / f"{name}.key").read_text()
        )
    return top


@pytest.fixture
def secure(authority: Path, request: pytest.FixtureRequest) -> Iterator[Registry]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.pem")
    if request.param == "mutual":
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority / "ca.pem")
    with registry.serving(context) as serving:
        serving.push("app", "1", [ONE])
        yield serving


@pytest.mark.parametrize("secure", ["tls"], indirect=True)
@pytest.mark.parametrize(
    ("lines", "good"),
    [
        ("", False), ("skip_verify = true", True),
        ('ca = "{ca}/ca.pem"', True), ('ca = "{ca}/client.pem"', False),
    ],
)  # fmt: skip
def test_a_private_authority_is_trusted_where_configured(
    secure: Registry, authority: Path, home: Path, lines: str, good: bool
) -> None:
    text = f'server = "{secure.url}"\n{lines.format(ca=authority)}\n'
    certs = hosts(home.parent / "certs", "r.example", text)

    async def story() -> None:
        async with opened(home, registry_dirs=(certs,)) as store:
            if good:
                assert (await store.pull("r.example/app:1")).tags == ("r.example/app:1",)
            else:
                found = await failure(store.pull("r.example/app:1"))
                assert "certificate verify failed" in str(found).lower()
                assert content(home) == []

    run(story)


@pytest.mark.parametrize("secure", ["mutual"], indirect=True)
def test_a_client_certificate_is_shown_where_configured(
    secure: Registry, authority: Path, home: Path
) -> None:
    ca = f'ca = "{authority}/ca.pem"\n'
    certs = hosts(
        home.parent / "certs",
        "r.example",
        f'server = "{secure.url}"\n{ca}client = "{authority}/client.pem"\n',
    )
    hosts(certs, "anonymous.example", f'server = "{secure.url}"\n{ca}')
    hosts(certs, "missing.example", f'server = "{secure.url}"\nclient = "nowhere.pem"\n')

    async def story() -> None:
        async with opened(home, registry_dirs=(certs,)) as store:
            assert await store.pull("r.example/app:1")
            assert isinstance(await failure(store.pull("anonymous.example/app:1")), Busy)
            missing = await failure(store.pull("missing.example/app:1"))
            assert isinstance(missing, BadInput)
            assert f"client {certs}/missing.example/nowhere.pem: No such file" in missing.message

    run(story)


@pytest.mark.parametrize("secure", ["tls"], indirect=True)
def test_dockers_certificate_directories_are_read(secure: Registry, authority: Path, home: Path) -> None:
    certs = home.parent / "certs"
    (certs / secure.address).mkdir(parents=True)
    (certs / secure.address / "ca.crt").write_text((authority / "ca.pem").read_text())

    async def story() -> None:
        async with opened(home, registry_dirs=(certs,)) as store:
            assert await store.pull(secure.reference("app:1"))

    run(story)


def test_a_proxy_is_asked_for_what_no_proxy_does_not_name(double: Registry, home: Path) -> None:
    """Plain HTTP through a proxy: it sees whole URLs, and the login that its own URL has."""
    pushed = double.push("app", "1", [ONE])
    certs = hosts(home.parent / "certs", "r.example", 'server = "http://r.example:8080"\n')

    def forwarded(request: Request, _right: Answer) -> Answer:
        host = "http://r.example:8080"
        assert request.path.startswith("/v2/")
        assert request.headers["host"] == host.removeprefix("http://")
        if request.headers.get("proxy-authorization") != PAIR:
            return error(407)
        return double._right(request)

    double.on("", forwarded, methods=("GET", "HEAD"))
    environment = {"http_proxy": f"http://ann:PASSWORD@{double.address}", "no_proxy": "other.example"}

    async def story() -> None:
        async with opened(home, registry_dirs=(certs,), environment=environment) as store:
            assert (await store.pull("r.example/app:1")).id == pushed.config
            assert f", through proxy http://{double.address} (" in (await store.explain("r.example/app:1"))[1]

    run(story)


@pytest.mark.parametrize("secure", ["tls"], indirect=True)
def test_tls_goes_through_a_tunnel_of_the_proxy_which_sees_no_request(
    secure: Registry, double: Registry, home: Path
) -> None:
    host = f"registry.example:{secure.address.partition(':')[2]}"
    address = secure.address.partition(":")
    double.tunnels[host] = (address[0], int(address[2]))
    certs = hosts(home.parent / "certs", "r.example", f'server = "https://{host}"\nskip_verify = true\n')
    environment = {"HTTPS_PROXY": f"http://ann:PASSWORD@{double.address}", "NO_PROXY": "10.0.0.0/8,.internal"}

    async def story() -> None:
        async with opened(home, registry_dirs=(certs,), environment=environment) as store:
            assert await store.pull("r.example/app:1", Credentials(username="bob", password="SECRET"))
        assert {(request.method, request.path) for request in double.requests} == {("CONNECT", host)}
        assert {request.headers["proxy-authorization"] for request in double.requests} == {PAIR}
        assert [request for request in secure.requests if "proxy-authorization" in request.headers] == []

    run(story)


def test_a_registry_with_an_ipv6_address(home: Path) -> None:
    with registry.serving(host="::1") as six:
        pushed = six.push("app", "1", [ONE])

        async def story() -> None:
            async with opened(home) as store:
                assert (await store.pull(six.reference("app:1"))).id == pushed.config

        run(story)
