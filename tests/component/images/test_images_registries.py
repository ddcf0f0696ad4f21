"""Files of three dialects at work: mirrors, short names, auth files and credential helpers."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from oci.errors import Absent, BadInput, Busy, CrispError, Deadline, Internal
from oci.registry_auth import Credentials
from shim.images import credential_helpers
from shim.images.settings import RegistryPlaces
from tests.component.images.rig import content, failure, opened, run
from tests.doubles import registry
from tests.doubles.registry import Registry, basic, failing, tar_of

ONE = tar_of({"one": b"1"})
PAIR = base64.b64encode(b"ann:PASSWORD").decode()


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    directory = tmp_path / "etc"
    directory.mkdir()
    return directory


@pytest.fixture
def other() -> Iterator[Registry]:
    with registry.serving() as serving:
        yield serving


def places(etc: Path) -> RegistryPlaces:
    return RegistryPlaces(
        registries_conf=etc / "registries.conf",
        daemon_json=etc / "daemon.json",
        auth_files=(etc / "auth.json",),
        namespaced_auth_dir=etc / "auth",
    )


def guarded(double: Registry, password: str = "PASSWORD") -> None:
    """Only ann is let in."""
    double.push("app", "1", [ONE])
    double.on("/v2/", basic("ann", password), methods=("GET", "HEAD"))


def authorized(double: Registry) -> int:
    return len([request for request in double.requests if "authorization" in request.headers])


def test_a_mirror_of_registries_conf_is_asked_under_its_own_name_with_its_own_credentials(
    double: Registry, other: Registry, home: Path, etc: Path
) -> None:
    pushed = double.push("cache/team/app", "1", [ONE])
    double.on("/v2/", basic("ann", "PASSWORD"), methods=("GET", "HEAD"))
    (etc / "registries.conf").write_text(
        f'[[registry]]\nprefix = "r.example/team"\nlocation = "{other.address}/team"\n'
        f'[[registry.mirror]]\nlocation = "{double.address}/cache/team"\ninsecure = true\n'
    )
    (etc / "auth.json").write_text(json.dumps({"auths": {f"{double.address}/cache": {"auth": PAIR}}}))

    async def story() -> None:
        async with opened(home, registries=places(etc)) as store:
            record = await store.pull("r.example/team/app:1", Credentials(username="bob", password="BOBS"))
            assert (record.id, record.tags) == (pushed.config, ("r.example/team/app:1",))
            assert authorized(double) > 0
            assert other.requests == []

    run(story)


def test_a_short_name_is_taken_from_the_first_registry_that_has_it(
    double: Registry, other: Registry, home: Path, etc: Path
) -> None:
    """And the image is found by it, also after a start."""
    pushed = other.push("team/app", "1", [ONE])
    lines = f'unqualified-search-registries = ["{double.address}", "{other.address}"]\n'
    (etc / "registries.conf").write_text(lines)

    async def story() -> None:
        async with opened(home, registries=places(etc)) as store:
            assert store.find("team/app:1") is None
            assert (await store.pull("team/app:1")).tags == (other.reference("team/app:1"),)
            found = store.find("team/app:1")
            assert found is not None
            assert found.id == pushed.config
            both = str(await failure(store.pull("team/none:1")))
            assert f"{double.address}/team/none:1" in both
            assert f"{other.address}/team/none:1" in both
        async with opened(home, registries=places(etc)) as store:
            assert store.find("team/app:1") == found

    run(story)


def test_a_short_name_that_begins_the_ids_of_two_images_is_pulled_and_leaves_no_picture_of_a_failure(
    double: Registry, home: Path, etc: Path
) -> None:
    (etc / "registries.conf").write_text(f'unqualified-search-registries = ["{double.address}"]\n')
    begins: dict[str, list[str]] = {}
    while not (twice := [name for name, tags in begins.items() if len(tags) == 2]):
        tag = str(sum(map(len, begins.values())))
        pushed = double.push("app", tag, [ONE], config={"Labels": {"number": tag}})
        begins.setdefault(pushed.config.removeprefix("sha256:")[0], []).append(tag)
    (name,) = twice

    async def story() -> None:
        async with opened(home, registries=places(etc)) as store:
            for tag in begins[name]:
                await store.pull(double.reference(f"app:{tag}"))
            assert isinstance(await failure(store.pull(name)), Absent)
            assert {pull.stage for pull in store.progress()} == {"done"}
            pushed = double.push(name, "latest", [tar_of({"two": b"2"})])
            assert (await store.pull(name)).id == pushed.config

    run(story)


def test_a_registry_that_does_not_answer_is_not_passed_over_for_a_short_name(
    double: Registry, other: Registry, home: Path, etc: Path
) -> None:
    other.push("team/app", "1", [ONE])
    double.on("/v2/", failing(503))
    (etc / "registries.conf").write_text(
        f'unqualified-search-registries = ["{double.address}", "{other.address}"]\n'
    )

    async def story() -> None:
        async with opened(home, registries=places(etc)) as store:
            assert isinstance(await failure(store.pull("team/app:1")), Busy)
            assert other.requests == []

    run(story)


def test_an_insecure_mirror_of_docker_is_asked_plainly_when_it_speaks_no_tls(
    double: Registry, home: Path, etc: Path
) -> None:
    pushed = double.push("library/app", "1", [ONE])
    (etc / "daemon.json").write_text(
        json.dumps(
            {"registry-mirrors": [f"https://{double.address}"], "insecure-registries": ["127.0.0.0/8"]}
        )
    )

    async def story() -> None:
        async with opened(home, registries=places(etc)) as store:
            assert (await store.pull("app:1")).id == pushed.config

    run(story)


def test_what_is_blocked_is_not_asked_for(double: Registry, home: Path, etc: Path) -> None:
    double.push("app", "1", [ONE])
    (etc / "registries.conf").write_text(f'[[registry]]\nlocation = "{double.address}"\nblocked = true\n')

    async def story() -> None:
        async with opened(home, registries=places(etc)) as store:
            found = await failure(store.pull(double.reference("app:1")))
            assert isinstance(found, BadInput)
            assert f"{double.address} is blocked in {etc}/registries.conf:3" in str(found)
            assert double.requests == []

    run(story)


def test_an_auth_file_that_changes_holds_for_the_next_pull_and_a_broken_one_refuses_it(
    double: Registry, home: Path, etc: Path
) -> None:
    guarded(double, "NEWPASSWORD")
    file = etc / "auth.json"

    def write(password: str) -> None:
        pair = base64.b64encode(f"ann:{password}".encode()).decode()
        file.write_text(json.dumps({"auths": {double.address: {"auth": pair}}}))

    async def story() -> None:
        async with opened(home, registries=places(etc)) as store:
            assert "wants credentials" in str(await failure(store.pull(double.reference("app:1"))))
            write("OLDPASSWORD")
            assert "refused the credentials" in str(await failure(store.pull(double.reference("app:1"))))
            write("NEWPASSWORD")
            assert await store.pull(double.reference("app:1"))
            (picture,) = store.progress()
            assert picture.credential_source == f"{file}:1"
            file.write_text('{"auths": {\n"' + double.address + '": {"auth": "NEWPASS')
            broken = await failure(store.pull(double.reference("app:1")))
            assert isinstance(broken, BadInput)
            assert str(broken).startswith(f"{file}:2: not JSON")
            assert "NEWPASS" not in str(broken)

    run(story)


def test_the_credentials_of_a_namespace_are_for_its_pods_alone(
    double: Registry, home: Path, etc: Path
) -> None:
    guarded(double)
    digest = hashlib.sha256(double.reference("app").encode()).hexdigest()
    (etc / "auth").mkdir()
    (etc / "auth" / f"team-{digest}.json").write_text(json.dumps({"auths": {double.address: {"auth": PAIR}}}))

    async def story() -> None:
        async with opened(home, registries=places(etc)) as store:
            for namespace in ("", "others", "../auth/team"):
                refused = await failure(store.pull(double.reference("app:1"), namespace=namespace))
                assert "wants credentials" in str(refused)
            assert await store.pull(double.reference("app:1"), namespace="team")
            assert f"credentials of {etc}/auth/team-{digest}.json:1" in "\n".join(
                await store.explain(double.reference("app:1"), namespace="team")
            )

    run(story)


HELPER = """#!/bin/sh
echo "$# $*" >> {log}
cat >> {log}
grep -l PASSWORD /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null >> {log}
{answer}
"""


def helped(etc: Path, double: Registry, answer: str) -> dict[str, str]:
    """A helper that does this after noting how it was called; the environment in which it is found."""
    programs = etc / "bin"
    programs.mkdir()
    helper = programs / "docker-credential-double"
    helper.write_text(HELPER.format(log=etc / "called", answer=answer))
    helper.chmod(0o755)
    (etc / "auth.json").write_text(json.dumps({"credHelpers": {double.address: "double"}}))
    return {"PATH": f"{programs}:/usr/bin:/bin"}


@pytest.mark.parametrize("times", [1, 2])
def test_a_credential_helper_gives_the_login_and_nobody_else_sees_it(
    double: Registry, home: Path, etc: Path, times: int
) -> None:
    guarded(double)
    answer = '{"ServerURL": "x", "Username": "ann", "Secret": "PASS' + "WORD" + '"}'
    environment = helped(etc, double, f"printf '%s' '{answer}'")

    async def story() -> None:
        async with opened(home, registries=places(etc), environment=environment) as store:
            for _ in range(times):
                assert await store.pull(double.reference("app:1"))
            said = "\n".join(await store.explain(double.reference("app:1")))
            assert f"credentials of docker-credential-double ({etc}/auth.json:1)" in said
        assert (etc / "called").read_text() == f"1 get\n{double.address}" * times

    run(story)


@pytest.mark.parametrize(
    ("answer", "kind", "why"),
    [
        ("echo credentials not found in native keychain; exit 1", BadInput, "wants credentials"),
        ("echo PASSWORD; echo PASSWORD >&2; exit 3", Internal, "ended with status 3"),
        ("echo PASSWORD", Internal, "did not answer with Username and Secret"),
        ("kill -9 $$", Internal, "ended with status -9"),
        ("head -c 400000 /dev/zero", Internal, "answered with more than"),
        ("sleep 60", Deadline, "did not answer within"),
    ],
)
def test_a_credential_helper_that_does_not_help_is_named(
    double: Registry,
    home: Path,
    etc: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    answer: str,
    kind: type[CrispError],
    why: str,
) -> None:
    guarded(double)
    environment = helped(etc, double, answer)
    caplog.set_level("DEBUG")
    monkeypatch.setattr(credential_helpers, "TIMEOUT", 1.0 if "sleep" in answer else 30.0)

    async def story() -> None:
        async with opened(home, registries=places(etc), environment=environment) as store:
            found = await failure(store.pull(double.reference("app:1")))
            assert isinstance(found, kind)
            assert why in str(found)
            if "wants" not in why:
                assert f"docker-credential-double ({etc}/auth.json:1)" in str(found)
            assert "PASSWORD" not in str(found) + caplog.text
            assert content(home) == []

    run(story)


def test_a_credential_helper_that_is_not_there_is_named(double: Registry, home: Path, etc: Path) -> None:
    guarded(double)
    environment = helped(etc, double, "true")
    (etc / "bin/docker-credential-double").unlink()

    async def story() -> None:
        async with opened(home, registries=places(etc), environment=environment) as store:
            found = await failure(store.pull(double.reference("app:1")))
            assert str(found).startswith(f"{etc}/auth.json:1: docker-credential-double is not among")

    run(story)


def test_an_image_that_is_nowhere_is_absent(double: Registry, home: Path, etc: Path) -> None:
    async def story() -> None:
        async with opened(home, registries=places(etc)) as store:
            assert isinstance(await failure(store.pull(double.reference("none:1"))), Absent)

    run(story)
