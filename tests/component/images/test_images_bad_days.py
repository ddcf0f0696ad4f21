"""Registries that fail, lie, cut and hang; content that is hostile; disks that fill. Nothing is ever left."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import json
import random
import socket
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from oci.errors import Absent, BadInput, Busy, CrispError, Deadline, Full, Internal
from oci.workload import ContainerId
from shim.images.settings import Limits
from shim.kernel import mount
from tests.component.images.rig import FAST, content, failure, opened, run
from tests.doubles.registry import (
    LAYER,
    MANIFEST,
    Answer,
    Reaction,
    Registry,
    Request,
    cutting,
    error,
    failing,
    tar_of,
)
from tests.machine import PATIENCE

BIG = tar_of({"big": random.Random(3).randbytes(3_000_000)})
ONE = tar_of({"one": b"1"})


def changed(change: Callable[[bytes], bytes]) -> Reaction:
    """Send other content in the place of the right one, headers fitting it."""

    def react(_request: Request, right: Answer) -> Answer:
        right.body = change(right.body)
        return right

    return react


def flipped(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]


@pytest.mark.parametrize(
    ("pattern", "reaction", "kind", "why"),
    [
        ("manifests", failing(404), Absent, "not found at .*/v2/app/manifests/1"),
        ("manifests", failing(401), BadInput, "wants credentials, or there is no such image"),
        ("manifests", failing(403), BadInput, "wants credentials, or there is no such image: .* told to"),
        ("manifests", failing(429), Busy, "^RegistryUnavailable: .*limits the rate of requests"),
        ("manifests", failing(429, Retry_After="3600"), Busy, "it asks to wait 3600 s"),
        ("manifests", failing(500), Busy, "^RegistryUnavailable: .*is in trouble .answer 500: X told to"),
        ("manifests", failing(418), Internal, "unexpected answer 418"),
        ("manifests", changed(lambda _: b"<html>log in</html>"), Internal, "sent content of digest"),
        ("manifests", cutting(10), Busy, "^RegistryUnavailable: "),
        ("blobs", failing(404), Absent, "layer 1 of 1.*not found|configuration: not found"),
        ("blobs", failing(500), Busy, "^RegistryUnavailable: .*is in trouble"),
        ("blobs/LAYER", failing(403), BadInput, "layer 1 of 1"),
        ("blobs/LAYER", failing(404), Absent, "layer 1 of 1"),
        ("blobs/LAYER", changed(flipped), Internal, "what came has digest sha256:.*, not sha256:"),
        ("blobs/LAYER", changed(lambda body: body + b"more"), Internal, "sent more than the"),
        ("blobs/LAYER", changed(lambda body: body[:-9]), Busy, "the connection ended 9 bytes before the end"),
        ("blobs/LAYER", changed(lambda _: b"<html>log in</html>"), Busy, "the connection ended"),
        ("blobs/CONFIG", changed(flipped), Internal, "sent .* bytes of digest sha256:.*, not .* bytes of"),
        ("blobs/CONFIG", changed(lambda body: body + b" "), BadInput, "sent more than"),
    ],
)  # fmt: skip
def test_a_registry_that_fails_gives_a_clear_error_and_leaves_nothing(
    double: Registry, home: Path, pattern: str, reaction: Reaction, kind: type[CrispError], why: str
) -> None:
    pushed = double.push("app", "1", [BIG])
    double.on(pattern.replace("LAYER", pushed.layers[0]).replace("CONFIG", pushed.config), reaction)

    async def story() -> None:
        async with opened(home) as store:
            found = await failure(store.pull(double.reference("app:1")))
            assert isinstance(found, kind)
            assert found.token == ("RegistryUnavailable" if kind is Busy else "")
            with pytest.raises(kind, match=why):
                raise found
            assert double.reference("app:1") in str(found)
            assert (content(home), store.all(), store.progress()) == ([], (), ())

    run(story)


@pytest.mark.parametrize(
    ("reaction", "requests"),
    [
        (failing(500), 3),
        (failing(429, Retry_After="0"), 3),
        (failing(503, Retry_After="Thu, 01 Jan 1970 00:00:00 GMT"), 3),
        (cutting(100), 3),
        (cutting(0), 3),
    ],
)  # fmt: skip
@pytest.mark.parametrize("pattern", ["manifests", "blobs/LAYER"])
def test_what_fails_for_a_moment_is_tried_again(
    double: Registry, home: Path, pattern: str, reaction: Reaction, requests: int
) -> None:
    pushed = double.push("app", "1", [BIG])
    pattern = pattern.replace("LAYER", pushed.layers[0])
    double.on(pattern, reaction, times=2)

    async def story() -> None:
        async with opened(home) as store:
            assert (await store.pull(double.reference("app:1"))).id == pushed.config
            assert len(double.asked(pattern)) == requests

    run(story)


def test_a_cut_at_ninety_percent_is_resumed_at_that_byte(double: Registry, home: Path) -> None:
    pushed = double.push("app", "1", [BIG])
    size = len(double.blobs[pushed.layers[0]])
    double.on(f"blobs/{pushed.layers[0]}", cutting(size * 9 // 10), times=1)

    async def story() -> None:
        async with opened(home) as store:
            await store.pull(double.reference("app:1"))
            ranges = [request.headers.get("range") for request in double.asked(f"blobs/{pushed.layers[0]}")]
            assert ranges == [None, f"bytes={size * 9 // 10}-"]

    run(story)


def test_a_registry_without_ranges_begins_again_and_the_beginning_is_passed_over(
    double: Registry, home: Path
) -> None:
    pushed = double.push("app", "1", [BIG])
    blob = double.blobs[pushed.layers[0]]
    double.on(f"blobs/{pushed.layers[0]}", cutting(2_000_000), times=1)
    double.on(f"blobs/{pushed.layers[0]}", lambda _request, _right: Answer(body=blob))

    async def story() -> None:
        async with opened(home) as store:
            assert (await store.pull(double.reference("app:1"))).id == pushed.config

    run(story)


def test_a_registry_that_cuts_again_and_again_gets_there_as_long_as_it_moves(
    double: Registry, home: Path
) -> None:
    pushed = double.push("app", "1", [tar_of({"big": random.Random(4).randbytes(12_000_000)})])
    double.on(f"blobs/{pushed.layers[0]}", cutting(1_200_000))

    async def story() -> None:
        async with opened(home) as store:
            assert (await store.pull(double.reference("app:1"))).id == pushed.config
            assert len(double.asked(f"blobs/{pushed.layers[0]}")) == 11

    run(story)


def test_a_download_that_stops_moving_is_given_up(double: Registry, home: Path) -> None:
    pushed = double.push("app", "1", [BIG])

    def react(_request: Request, right: Answer) -> Answer:
        right.hold = threading.Event()
        return right

    double.on(f"blobs/{pushed.layers[0]}", react)

    async def story() -> None:
        async with opened(home, transfer=replace(FAST, read_timeout=0.3, retries=1)) as store:
            found = await failure(store.pull(double.reference("app:1")))
            assert (type(found), found.token) == (Busy, "RegistryUnavailable")
            assert "timed out" in found.message
            assert content(home) == []

    run(story)


def test_a_download_below_the_minimum_rate_is_given_up(double: Registry, home: Path) -> None:
    pushed = double.push("app", "1", [BIG])

    def react(_request: Request, right: Answer) -> Answer:
        right.drip = 0.01
        return right

    double.on(f"blobs/{pushed.layers[0]}", react)
    slow = replace(FAST, stall_timeout=0.2, minimum_rate=1_000_000, retries=1)

    async def story() -> None:
        async with opened(home, transfer=slow) as store:
            found = await failure(store.pull(double.reference("app:1")))
            assert (type(found), found.token) == (Busy, "RegistryUnavailable")
            assert "less than 1000000 a second" in found.message
            assert len(double.asked(f"blobs/{pushed.layers[0]}")) == 2

    run(story)


def test_a_pull_that_goes_on_for_ever_ends_with_its_time(double: Registry, home: Path) -> None:
    pushed = double.push("app", "1", [BIG])

    def react(_request: Request, right: Answer) -> Answer:
        right.drip = 0.01
        return right

    double.on(f"blobs/{pushed.layers[0]}", react)

    async def story() -> None:
        async with opened(home, transfer=replace(FAST, total=2.0)) as store:
            began = time.monotonic()
            found = await failure(store.pull(double.reference("app:1")))
            assert isinstance(found, Deadline)
            assert "not here after 2 s (images.pull_timeout)" in found.message
            assert time.monotonic() - began < 6 * PATIENCE
            assert (store.all(), store.progress()) == ((), ())

    run(story)


def test_a_connection_that_is_never_taken_ends_with_the_pull(home: Path) -> None:
    """The queue of a server that takes nobody is full: connecting to it hangs in the kernel."""

    async def story() -> None:
        with socket.socket() as server, contextlib.ExitStack() as waiting:
            server.bind(("127.0.0.1", 0))
            server.listen(0)
            for _ in range(4):
                client = waiting.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(server.getsockname())
            async with opened(home) as store:
                pull = asyncio.ensure_future(store.pull(f"127.0.0.1:{server.getsockname()[1]}/app:1"))
                await asyncio.wait({pull}, timeout=0.3)
                assert not pull.done()
                begun = time.monotonic()
                pull.cancel()
                await asyncio.wait({pull})
                assert time.monotonic() - begun < PATIENCE
                assert [
                    t for t in threading.enumerate() if t.name.startswith("crisp-registry") and busy(t)
                ] == []

    run(story)


def busy(thread: threading.Thread) -> bool:
    """Whether a thread of a pool is in the middle of work and not waiting for some."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if frame.f_code.co_name == "_connect":
            return True
        frame = frame.f_back
    return False


def test_hanging_registries_do_not_keep_containers_from_their_images(double: Registry, home: Path) -> None:
    double.push("app", "1", [ONE])

    def hang(_request: Request, right: Answer) -> Answer:
        right.before = threading.Event()
        return right

    async def story() -> None:
        async with opened(home) as store:
            record = await store.pull(double.reference("app:1"))
            double.on("", hang)
            names = [double.reference(f"other{number}:1") for number in range(50)]
            pulls = [asyncio.ensure_future(store.pull(name)) for name in names]
            while len(double.asked("other")) < 30:
                await asyncio.sleep(0.01)
            async with asyncio.timeout(PATIENCE):
                await store.acquire_rootfs(ContainerId("c"), record.id, home)
                await store.release_rootfs(ContainerId("c"))
                await store.remove(record.id)
            for pull in pulls:
                pull.cancel()
            begun = time.monotonic()
            await asyncio.wait(pulls)
            assert time.monotonic() - begun < 2 * PATIENCE

    run(story)


@pytest.mark.parametrize("stage", ["manifests", "blobs/CONFIG", "blobs/LAYER", "blobs/LAYER half"])
def test_a_cancelled_pull_of_a_hanging_registry_ends_within_two_seconds(
    double: Registry, home: Path, form: str, stage: str
) -> None:
    pushed = double.push("app", "1", [BIG])
    pattern = stage.partition(" ")[0].replace("LAYER", pushed.layers[0]).replace("CONFIG", pushed.config)

    def react(_request: Request, right: Answer) -> Answer:
        event = threading.Event()
        if stage.endswith("half"):
            right.hold = event
        else:
            right.before = event
        return right

    double.on(pattern, react)

    async def story() -> None:
        async with opened(home, form=form) as store:
            pulls = [asyncio.ensure_future(store.pull(double.reference("app:1"))) for _ in range(3)]
            while not double.asked(pattern):
                await asyncio.sleep(0.01)
            begun = time.monotonic()
            for pull in pulls[:2]:
                pull.cancel()
            await asyncio.wait(pulls[:2])
            assert len(store.progress()) == 1
            pulls[2].cancel()
            await asyncio.wait(pulls)
            assert time.monotonic() - begun < 2 * PATIENCE
            assert all(pull.cancelled() for pull in pulls)
            assert (content(home), store.all(), store.progress()) == ([], (), ())
            double.rules.clear()
            assert (await store.pull(double.reference("app:1"))).id == pushed.config

    run(story)


def test_a_pull_cancelled_at_any_moment_leaves_the_image_or_nothing(
    double: Registry, home: Path, form: str
) -> None:
    pushed = double.push("app", "1", [BIG, ONE])

    async def story() -> None:
        async with opened(home, form=form) as store:
            outcomes = set()
            for step in range(25):
                pull = asyncio.ensure_future(store.pull(double.reference("app:1")))
                await asyncio.wait({pull}, timeout=step * 0.01)
                pull.cancel()
                await asyncio.wait({pull})
                ready = store.find(pushed.config) is not None
                outcomes.add(ready)
                if ready:
                    await store.remove(pushed.config)
                assert (content(home), store.all()) == ([], ())
            assert False in outcomes

    run(story)


def test_a_dead_registry_is_unavailable(home: Path) -> None:
    async def story() -> None:
        async with opened(home) as store:
            found = await failure(store.pull("127.0.0.1:1/app:1"))
            assert (type(found), found.token) == (Busy, "RegistryUnavailable")
            assert "Connection refused" in found.message
            found = await failure(store.pull("no-such-host.invalid/app:1"))
            assert (type(found), found.token) == (Busy, "RegistryUnavailable")

    run(story)


def malformed(name: str) -> bytes:
    """Layers that must not become files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        if name == "climbs":
            tar.addfile(tarfile.TarInfo("../../evil"))
        elif name == "links to a missing file":
            member = tarfile.TarInfo("link")
            member.type, member.linkname = tarfile.LNKTYPE, "nowhere"
            tar.addfile(member)
        elif name == "goes through a file":
            tar.addfile(tarfile.TarInfo("file"))
            tar.addfile(tarfile.TarInfo("file/below"))
    body = buffer.getvalue()
    return {"is no tar": b"x" * 5000, "is cut": BIG[:1_000_000]}.get(name, body)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("climbs", "path leaves the root"),
        ("links to a missing file", "hard link to 'nowhere'"),
        ("goes through a file", "'file' above it is no directory"),
        ("is no tar", "wrong checksum"),
        ("is cut", "archive is truncated"),
    ],
)  # fmt: skip
def test_a_hostile_layer_is_refused_by_name(
    double: Registry, home: Path, form: str, name: str, why: str
) -> None:
    double.push("app", "1", [ONE, malformed(name)])

    async def story() -> None:
        async with opened(home, form=form) as store:
            with pytest.raises(BadInput, match=f"layer 2 of 2 .*{why}"):
                await store.pull(double.reference("app:1"))
            assert content(home) == []

    run(story)


def hostile_links() -> bytes:
    """Links that would lead out of any root which is not the process's own."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, target in (("a", "/"), ("b", "../../../../../.."), ("c", "/proc/self/root")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
        for name in ("a/escaped", "b/escaped2"):
            tar.addfile(tarfile.TarInfo(name))
        member = tarfile.TarInfo("h")
        member.type, member.linkname = tarfile.LNKTYPE, "a/escaped"
        tar.addfile(member)
    return buffer.getvalue()


def test_links_lead_nowhere_but_into_the_layer(double: Registry, home: Path, form: str) -> None:
    double.push("app", "1", [hostile_links()])

    async def story() -> None:
        async with opened(home, form=form) as store:
            record = await store.pull(double.reference("app:1"))
            assert not Path("/escaped").exists()
            assert not Path("/escaped2").exists()
            await store.remove(record.id)
            assert content(home) == []

    run(story)


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
def test_a_bomb_is_stopped_at_the_limit(
    double: Registry, home: Path, compress: Callable[[bytes], bytes]
) -> None:
    double.push("app", "1", [tar_of({"zeros": bytes(150 << 20)})], compress=compress)

    async def story() -> None:
        async with opened(home, limits=Limits(ratio=50)) as store:
            with pytest.raises(BadInput, match="more than 67108864 uncompressed bytes"):
                await store.pull(double.reference("app:1"))
            assert content(home) == []

    run(story)


def with_manifest(double: Registry, change: Callable[[dict[str, object]], object]) -> None:
    """Put a changed copy of app:1's manifest in its place."""
    document = json.loads(double.manifests["app:1"][1])
    change(document)
    double.put_manifest("app", "1", document, str(document.get("mediaType", MANIFEST)))


@pytest.mark.parametrize(
    ("change", "limits", "why"),
    [
        (lambda d: d.update(schemaVersion=1), Limits(), "schema 1 is not supported"),
        (lambda d: d["config"].update(mediaType="application/vnd.cncf.helm.config.v1+json"), Limits(),
         "artifact of type"),
        (lambda d: d["layers"].append(d["layers"][0]), Limits(), "2 layers, the configuration 1"),
        (lambda d: d.update(annotations={"x": "y" * 5000}), Limits(manifest=4096), "more than 4096 bytes"),
        (lambda d: d["config"].update(size=10_000_000), Limits(), "10000000 bytes, the limit is 4194304"),
        (lambda d: None, Limits(layers=0), "1 layers, the limit is 0"),
        (lambda d: d["layers"][0].update(size=10**12), Limits(), "layers of 1000000000000 bytes, the"),
        (lambda d: None, Limits(image=4096), "more than 4096 uncompressed bytes"),
        (lambda d: d["layers"][0].update(size=5), Limits(), "sent more than the 5 bytes"),
    ],
)  # fmt: skip
def test_a_manifest_that_asks_too_much_is_refused(
    double: Registry, home: Path, change: Callable[[dict[str, object]], object], limits: Limits, why: str
) -> None:
    double.push("app", "1", [ONE])
    with_manifest(double, change)

    async def story() -> None:
        async with opened(home, limits=limits) as store:
            found = await failure(store.pull(double.reference("app:1")))
            assert why in str(found)
            assert content(home) == []

    run(story)


def test_an_image_of_another_platform_is_refused_and_the_error_says_what_it_is(
    double: Registry, home: Path
) -> None:
    double.push("app", "1", [ONE], architecture="s390x")

    async def story() -> None:
        async with opened(home, architecture="amd64") as store:
            with pytest.raises(BadInput, match="the image is for linux/s390x, this node runs linux/amd64"):
                await store.pull(double.reference("app:1"))

    run(story)


def test_a_layer_with_another_diff_id_than_the_configuration_says_is_refused(
    double: Registry, home: Path
) -> None:
    pushed = double.push("app", "1", [ONE])
    other = double.put_blob(gzip.compress(BIG))
    size = len(double.blobs[other])

    def change(document: dict[str, object]) -> None:
        document["layers"] = [{"mediaType": LAYER, "digest": other, "size": size}]

    with_manifest(double, change)

    async def story() -> None:
        async with opened(home) as store:
            with pytest.raises(Internal, match=f"the image configuration says {pushed.diff_ids[0]}"):
                await store.pull(double.reference("app:1"))
            assert content(home) == []

    run(story)


def test_a_full_disk_is_named_and_nothing_stays(double: Registry, tmp_path: Path, form: str) -> None:
    double.push("app", "1", [BIG, tar_of({"more": random.Random(5).randbytes(4_000_000)})])
    disk = tmp_path / "disk"
    disk.mkdir()

    async def story() -> None:
        async with opened(disk, form=form) as store:
            found = await failure(store.pull(double.reference("app:1")))
            assert type(found) is Full
            assert str(disk / "images") in found.message
            assert "ENOSPC" in found.message
            assert (content(disk), store.all()) == ([], ())

    mount.mount("none", disk, "tmpfs", data="size=5m")
    try:
        run(story)
    finally:
        mount.unmount(disk)


def test_the_disk_being_full_is_no_reason_to_lose_what_is_there(double: Registry, tmp_path: Path) -> None:
    double.push("small", "1", [ONE])
    double.push("app", "1", [BIG])
    disk = tmp_path / "disk"
    disk.mkdir()

    async def story() -> None:
        async with opened(disk) as store:
            record = await store.pull(double.reference("small:1"))
            assert type(await failure(store.pull(double.reference("app:1")))) is Full
            assert store.all() == (record,)
            await store.remove(record.id)
            assert content(disk) == []

    mount.mount("none", disk, "tmpfs", data="size=2m")
    try:
        run(story)
    finally:
        mount.unmount(disk)


def test_another_pulls_failure_is_not_ours(double: Registry, home: Path) -> None:
    """Two images share a layer; the one that fetches it may not, the one that joined may."""
    pushed = double.push("closed", "1", [BIG])
    double.push("open", "1", [BIG])
    gate = threading.Event()

    def refuse(_request: Request, _right: Answer) -> Answer:
        answer = error(403)
        answer.before = gate
        return answer

    double.on(f"/closed/blobs/{pushed.layers[0]}", refuse)

    async def story() -> None:
        async with opened(home) as store:
            closed = asyncio.ensure_future(failure(store.pull(double.reference("closed:1"))))
            while not double.asked(f"/closed/blobs/{pushed.layers[0]}"):
                await asyncio.sleep(0.01)
            other = asyncio.ensure_future(store.pull(double.reference("open:1")))
            while not double.asked("/open/blobs"):
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            gate.set()
            assert type(await closed) is BadInput
            assert (await other).tags == (double.reference("open:1"),)

    run(story)


def test_a_tag_that_moves_while_it_is_pulled_gives_one_of_both_images_whole(
    double: Registry, home: Path
) -> None:
    first = double.push("app", "1", [BIG, ONE])
    moved = threading.Event()

    def react(_request: Request, right: Answer) -> Answer:
        if not moved.is_set():
            moved.set()
            double.push("app", "1", [ONE])
        return right

    double.on(f"blobs/{first.layers[0]}", react)

    async def story() -> None:
        async with opened(home) as store:
            record = await store.pull(double.reference("app:1"))
            assert (record.id, record.layers) == (first.config, first.diff_ids)
            assert moved.is_set()

    run(story)


def test_a_clock_at_1970_loses_nothing(
    double: Registry, home: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A board without a battery: its clock begins anew and leaps when a server is reached."""
    pushed = double.push("app", "1", [BIG])
    monkeypatch.setattr(time, "time", lambda: 5.0)
    monkeypatch.setattr(time, "time_ns", lambda: 5 * 10**9)

    async def story() -> None:
        async with opened(home, form=form) as store:
            assert (await store.pull(double.reference("app:1"))).id == pushed.config
        monkeypatch.undo()
        async with opened(home, form=form) as store:
            assert store.require(double.reference("app:1")).id == pushed.config
            await store.remove(pushed.config)
            assert content(home) == []

    run(story)


def test_a_store_on_a_disk_that_became_read_only_says_so_and_shows_what_it_has(
    double: Registry, tmp_path: Path
) -> None:
    double.push("app", "1", [ONE])
    double.push("app", "2", [BIG])
    disk = tmp_path / "state/images"
    disk.mkdir(parents=True)
    mount.mount("tmpfs", disk, "tmpfs", mount.Flag(0), "size=64m")
    try:

        async def story() -> None:
            async with opened(tmp_path / "state", form="directory") as store:
                image = await store.pull(double.reference("app:1"))
                mount.mount("none", disk, "", mount.Flag.REMOUNT | mount.Flag.RDONLY)
                try:
                    found = await failure(store.pull(double.reference("app:2")))
                    assert isinstance(found, Internal)
                    assert "read-only file system (EROFS)" in str(found)
                    assert store.all() == (image,)
                finally:
                    mount.mount("none", disk, "", mount.Flag.REMOUNT)
                await store.pull(double.reference("app:2"))

        run(story)
    finally:
        mount.unmount(disk)
