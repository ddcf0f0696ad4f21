"""Habits of registries that are in use, each as rules of the double: what it does, and what comes of it.

`HABITS` is the list in docs/registries.md. They are written down from the registries' own documentation and
from what their clients have met; nothing here talks to them.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import zstandard

from oci.errors import BadInput, Busy, CrispError
from oci.registry_auth import Credentials
from tests.doubles.registry import (
    ARCHITECTURE,
    CONFIG,
    INDEX,
    LAYER,
    MANIFEST,
    Answer,
    Reaction,
    Registry,
    Request,
    Rule,
    error,
    failing,
    redirecting,
    tar_of,
)

ONE = tar_of({"one": b"1"})
TWO = tar_of({"two": b"2" * 4096})
BOTH = ("GET", "HEAD")


@dataclass(slots=True, kw_only=True)
class Scene:
    """What is pulled, as whom, and how it ends: with that configuration as id, or refused."""

    image: str = "team/app:1"
    who: Credentials | None = None
    id: str = ""
    kind: type[CrispError] | None = None
    why: str = ""  # an expression that fits the refusal
    after: Callable[[], None] = lambda: None  # asserts what was asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Habit:
    """`arrange` gets the registry and a storage that it may redirect to, which refuses any login."""

    registry: str
    does: str
    then: str
    arrange: Callable[[Registry, Registry], Scene] = field(repr=False)


def pushed(double: Registry, repository: str = "team/app", **how: Any) -> str:
    """An image of two layers; its id."""
    return double.push(repository, "1", [ONE, TWO], **how).config


def stored(double: Registry, storage: Registry, status: int = 307) -> None:
    """Blobs come by a signed redirect to a storage that takes no second login."""
    storage.blobs = double.blobs

    def no_login(request: Request, right: Answer) -> Answer:
        if "authorization" in request.headers:
            return error(400, "InvalidRequest", "Only one auth mechanism allowed")
        return right

    storage.on("", no_login)

    def away(request: Request, right: Answer) -> Answer:
        answer = redirecting(storage.url)(request, right)
        answer.status = status
        return answer

    double.on("/blobs/", away)


def token_service(
    double: Registry,
    *,
    path: str = "/token",
    login: str = "",
    answer: Callable[[str], dict[str, Any]] = lambda token: {"token": token, "expires_in": 300},
    scope: str = "repository:team/app:pull",
    good: Callable[[str], bool] = lambda token: token.startswith("TOKEN"),
) -> None:
    """Tokens for a login ("Basic ..." or a form; "" is nobody), demanded for everything below /v2/."""

    def give(request: Request, _right: Answer) -> Answer:
        shown = request.headers.get("authorization", "") or request.body.decode()
        if shown != login:
            return error(401, "UNAUTHORIZED", "authentication required")
        token = f"TOKEN{len(double.asked(path))}"
        return Answer(headers={"Content-Type": "application/json"}, body=json.dumps(answer(token)).encode())

    def demand(request: Request, right: Answer) -> Answer:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme == "Bearer" and good(token):
            return right
        wanted = f'Bearer realm="{double.url}{path}",service="{double.address}",scope="{scope}"'
        return error(401, "UNAUTHORIZED", "authentication required", WWW_Authenticate=wanted)

    double.on(path, give, methods=("GET", "POST"))
    double.rules.insert(0, _rule("/v2/", demand_then(double, demand)))


def demand_then(double: Registry, demand: Reaction) -> Reaction:
    """`demand` first; what is let in meets the rules behind it."""

    def react(request: Request, right: Answer) -> Answer:
        answer = demand(request, right)
        if answer is not right:
            return answer
        here = next(number for number, rule in enumerate(double.rules, 1) if rule.react is react)
        for rule in double.rules[here:]:
            if rule.fits(request):
                rule.times -= 1
                return rule.react(request, right)
        return right

    return react


def _rule(pattern: str, react: Reaction) -> Rule:
    return Rule(pattern=pattern, react=react, methods=BOTH)


def basic_of(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def without(*names: str, **instead: str) -> Reaction:
    """The right answer without some headers, or with others in their place."""

    def react(_request: Request, right: Answer) -> Answer:
        named = {name.replace("_", "-"): text for name, text in instead.items()}
        right.headers = {**{k: v for k, v in right.headers.items() if k not in names}, **named}
        return right

    return react


# Docker Hub


def hub(double: Registry, storage: Registry) -> Scene:
    id_ = pushed(double, "library/app")
    stored(double, storage)
    token_service(
        double,
        scope="repository:library/app:pull",
        answer=lambda token: {
            "token": token, "access_token": token, "expires_in": 300, "issued_at": "2026-01-01T00:00:00Z",
        },
    )  # fmt: skip
    return Scene(image="library/app:1", id=id_)


def hub_limited(double: Registry, _storage: Registry) -> Scene:
    pushed(double, "library/app")
    words = "You have reached your pull rate limit."
    limit = {"RateLimit_Limit": "100;w=21600", "RateLimit_Remaining": "0;w=21600"}
    double.on("/manifests/", lambda _q, _r: error(429, "TOOMANYREQUESTS", words, **limit), methods=BOTH)
    return Scene(
        image="library/app:1",
        kind=Busy,
        why=r"limits the rate of requests \(answer 429: TOOMANYREQUESTS You have reached.*100 in 6 h",
    )


def hub_patient(double: Registry, _storage: Registry) -> Scene:
    id_ = pushed(double, "library/app")
    double.on("/manifests/", failing(429, Retry_After="1"), times=1)
    return Scene(image="library/app:1", id=id_)


# Clouds


def ecr(double: Registry, storage: Registry) -> Scene:
    id_ = pushed(double)
    stored(double, storage)
    password = "A1" * 1200
    wanted = f'Basic realm="{double.url}/",service="ecr.amazonaws.com"'

    def demand(request: Request, right: Answer) -> Answer:
        if request.headers.get("authorization") == basic_of("AWS", password):
            return right
        return error(401, "DENIED", "Not Authorized", WWW_Authenticate=wanted)

    double.rules.insert(0, _rule("/v2/", demand_then(double, demand)))
    return Scene(id=id_, who=Credentials(username="AWS", password=password))


def ecr_expired(double: Registry, _storage: Registry) -> Scene:
    pushed(double)
    words = "Your authorization token has expired. Reauthenticate and try again."
    double.on("/v2/", lambda _q, _r: error(403, "DENIED", words), methods=BOTH)
    return Scene(
        who=Credentials(username="AWS", password="OLD"),
        kind=BadInput,
        why="refused the credentials: .*Your authorization token has expired",
    )


def gar(double: Registry, _storage: Registry) -> Scene:
    id_ = pushed(double)
    key = '{\n "type": "service_account",\n "private_key": "-----BEGIN\\n"\n}'

    def moved(request: Request, _right: Answer) -> Answer:
        digest = request.path.rpartition("/")[2]
        return Answer(status=302, headers={"Location": f"/artifacts-downloads/{digest}"})

    def given(request: Request, _right: Answer) -> Answer:
        return Answer(body=double.blobs[request.path.rpartition("/")[2]])

    double.on("/blobs/", moved)
    double.on("/artifacts-downloads/", given)
    token_service(double, path="/v2/token", login=basic_of("_json_key", key))
    # the token service itself lies below /v2/
    double.rules.insert(0, double.rules.pop())
    return Scene(id=id_, who=Credentials(username="_json_key", password=key))


def acr(double: Registry, storage: Registry) -> Scene:
    id_ = pushed(double)
    stored(double, storage)
    form = (
        "grant_type=refresh_token&refresh_token=REFRESH&client_id=crisp"
        f"&service={double.address.replace(':', '%3A')}&scope=repository%3Ateam%2Fapp%3Apull"
    )
    token_service(double, path="/oauth2/token", login=form, answer=lambda token: {"access_token": token})
    return Scene(id=id_, who=Credentials(identity_token="REFRESH"))


# Forges


def ghcr(double: Registry, storage: Registry) -> Scene:
    id_ = pushed(double)
    stored(double, storage)
    token_service(double, answer=lambda token: {"token": token})
    return Scene(id=id_)


def ghcr_private(double: Registry, _storage: Registry) -> Scene:
    pushed(double)
    token_service(double)
    words = "requested access to the resource is denied"
    double.rules.insert(1, _rule("/token", lambda _q, _r: error(403, "DENIED", words)))
    return Scene(kind=BadInput, why="token service: .*requested access to the resource is denied")


def gitlab(double: Registry, storage: Registry) -> Scene:
    """The token ends after the manifest."""
    id_ = pushed(double)
    stored(double, storage)
    login = basic_of("gitlab+deploy-token-1", "SECRET")
    blob = list(double.blobs)[-1]
    spent: set[str] = set()

    def good(token: str) -> bool:
        if double.requests and blob in double.requests[-1].path and not spent:
            spent.add(token)
        return token.startswith("TOKEN") and token not in spent

    token_service(double, path="/jwt/auth", login=login, good=good)

    def after() -> None:
        assert len(double.asked("/jwt/auth")) >= 2

    return Scene(id=id_, who=Credentials(username="gitlab+deploy-token-1", password="SECRET"), after=after)


# Products


def quay_absent(double: Registry, _storage: Registry) -> Scene:
    token_service(double, path="/v2/auth", good=lambda _: False)
    double.rules.insert(0, double.rules.pop())
    return Scene(kind=BadInput, why="wants credentials, or there is no such image")


def quay_schema1(double: Registry, _storage: Registry) -> Scene:
    document = {"schemaVersion": 1, "name": "team/app", "tag": "1", "fsLayers": [], "history": []}
    kind = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    double.put_manifest("team/app", "1", document, kind)
    return Scene(kind=BadInput, why="schema 1 is not supported .*push the image again")


def harbor(double: Registry, _storage: Registry) -> Scene:
    id_ = pushed(double, "proxy/library/app")
    login = basic_of("robot$proxy+puller", "SECRET")
    double.on("/manifests/", without("Docker-Content-Digest"), methods=BOTH)
    token_service(double, path="/service/token", login=login, scope="repository:proxy/library/app:pull")
    who = Credentials(username="robot$proxy+puller", password="SECRET")
    return Scene(image="proxy/library/app:1", id=id_, who=who)


def artifactory(double: Registry, _storage: Registry) -> Scene:
    id_ = pushed(double, "docker-local/app")
    login = basic_of("ann", "SECRET")

    def demand(request: Request, right: Answer) -> Answer:
        if request.headers.get("authorization") in ("Bearer TOKEN", login):
            return right
        both = f'Basic realm="Artifactory Realm", Bearer realm="{double.url}/token",service="x"'
        return error(401, "UNAUTHORIZED", "Bad props auth token: ", WWW_Authenticate=both)

    double.rules.insert(0, _rule("/v2/", demand_then(double, demand)))
    double.on("/token", lambda _q, _r: Answer(body=b'{"token": "TOKEN", "expires_in": "3600"}'))
    double.on("/manifests/", failing(405), methods=("HEAD",))
    return Scene(image="docker-local/app:1", id=id_, who=Credentials(username="ann", password="SECRET"))


def nexus(double: Registry, _storage: Registry) -> Scene:
    id_ = pushed(double)
    wrong = without(Content_Type="application/vnd.docker.distribution.manifest.v1+prettyjws")
    double.on("/manifests/", wrong, methods=BOTH)
    double.on("/blobs/", without(Content_Type="text/html"))
    return Scene(id=id_)


def nexus_lost(double: Registry, _storage: Registry) -> Scene:
    page = b"<!DOCTYPE html><html><title>404 - Sonatype Nexus Repository</title></html>"
    double.on("/v2/", lambda _q, _r: Answer(status=200, headers={"Content-Type": "text/html"}, body=page))
    return Scene(kind=BadInput, why="not JSON, it begins '<!DOCTYPE html>")


def zot(double: Registry, _storage: Registry) -> Scene:
    """zstd layers in an index that has attestations too."""
    id_ = pushed(double, compress=zstandard.ZstdCompressor().compress, kind=LAYER.replace("+gzip", "+zstd"))
    kind, content = double.manifests["team/app:1"]
    image = double.put_manifest("team/app", "", content, kind)
    noted = double.put_manifest("team/app", "", _artifact(double, "application/vnd.in-toto+json"), MANIFEST)
    entries = [
        {
            "mediaType": MANIFEST, "digest": noted, "size": len(double.manifests[f"team/app@{noted}"][1]),
            "platform": {"os": "unknown", "architecture": "unknown"},
            "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
        },
        {
            "mediaType": MANIFEST, "digest": image, "size": len(content),
            "platform": {"os": "linux", "architecture": ARCHITECTURE},
        },
    ]  # fmt: skip
    double.put_manifest(
        "team/app", "1", {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}, INDEX
    )
    return Scene(id=id_)


def distribution(double: Registry, _storage: Registry) -> Scene:
    id_ = pushed(double)

    def demand(request: Request, right: Answer) -> Answer:
        if request.headers.get("authorization") == basic_of("ann", "SECRET"):
            return right
        return error(401, "UNAUTHORIZED", "authentication required", WWW_Authenticate="basic realm=Registry")

    double.on("/v2/", demand, methods=BOTH)
    auth = base64.b64encode(b"ann:SECRET\0").decode()
    return Scene(id=id_, who=Credentials(auth=auth, server_address=f"https://{double.address}/v1/"))


def _artifact(double: Registry, kind: str) -> dict[str, Any]:
    config = double.put_blob(b"{}")
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": kind,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
        "layers": [],
    }


def chart(double: Registry, _storage: Registry) -> Scene:
    document = _artifact(double, "application/vnd.cncf.helm.config.v1+json")
    double.put_manifest("team/app", "1", document, MANIFEST)
    return Scene(kind=BadInput, why="artifact of type 'application/vnd.cncf.helm.config.v1.json', not a con")


def foreign(double: Registry, _storage: Registry) -> Scene:
    """A layer that only another place has."""
    double.push("team/app", "1", [ONE])
    document = json.loads(double.manifests["team/app:1"][1])
    blob = gzip.compress(ONE, mtime=5)
    document["layers"] = [
        {
            "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "digest": "sha256:" + "0" * 64,
            "size": len(blob),
            "urls": ["https://elsewhere.example/layer"],
        }
    ]
    assert document["config"]["mediaType"] == CONFIG
    double.put_manifest("team/app", "1", document, MANIFEST)
    return Scene(kind=BadInput, why="layer 1 of 1 .*foreign layer, which this registry does not hold")


HABITS = (
    Habit(registry="Docker Hub", does="tokens for everyone, blobs by signed redirect to a CDN",
          then="a token a pull; the redirect gets no login", arrange=hub),
    Habit(registry="Docker Hub", does="429 without Retry-After, `RateLimit-Limit`",
          then="tried again, then refused with its words and the limit", arrange=hub_limited),
    Habit(registry="Docker Hub", does="429 with Retry-After", then="waits that long", arrange=hub_patient),
    Habit(registry="ECR", does="basic, passwords of 2 KiB; S3 refuses a second login",
          then="the redirect gets no login", arrange=ecr),
    Habit(registry="ECR", does="403 where a password has expired",
          then="refused with its words", arrange=ecr_expired),
    Habit(registry="GAR, GCR", does="a JSON key of several lines as password; redirects within the host",
          then="sent as it is; the host keeps its login", arrange=gar),
    Habit(registry="ACR", does="refresh tokens; answers `access_token` alone",
          then="posted to the token service", arrange=acr),
    Habit(registry="GHCR", does="tokens even for public images, without `expires_in`",
          then="an anonymous token", arrange=ghcr),
    Habit(registry="GHCR", does="the token service says 403 for what is private or not there",
          then="refused with its words", arrange=ghcr_private),
    Habit(registry="GitLab", does="tokens that end within minutes", then="a new one in mid-pull",
          arrange=gitlab),
    Habit(registry="Quay", does="401 for what is not there", then="refused: no credentials, or no such image",
          arrange=quay_absent),
    Habit(registry="Quay", does="manifests of schema 1", then="refused with the reason",
          arrange=quay_schema1),
    Habit(registry="Harbor", does="robots named `robot$x+y`; a proxy cache without Docker-Content-Digest",
          then="the digest is computed", arrange=harbor),
    Habit(registry="Artifactory", does="offers basic and bearer; HEAD is refused; `expires_in` as text",
          then="bearer; GET", arrange=artifactory),
    Habit(registry="Nexus", does="wrong Content-Type", then="the document's own mediaType counts",
          arrange=nexus),
    Habit(registry="Nexus", does="a page of HTML with status 200", then="refused: not JSON",
          arrange=nexus_lost),
    Habit(registry="Zot", does="indexes with attestations, zstd layers", then="taken", arrange=zot),
    Habit(registry="distribution", does="basic, scheme in lower case, realm without quotes", then="taken",
          arrange=distribution),
    Habit(registry="any", does="a chart or another artifact under the name",
          then="refused with its type", arrange=chart),
    Habit(registry="any", does="a foreign layer that only other places have",
          then="refused with the reason; nothing is fetched from elsewhere", arrange=foreign),
)  # fmt: skip
