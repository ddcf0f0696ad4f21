"""Pulls that succeed: names, platforms, forms, repeats, joins, and what is asked of the registry."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest
import zstandard

from oci.errors import Absent
from oci.image import ImageConfig
from oci.workload import ContainerId
from tests.component.images.rig import content, files, opened, run, shown
from tests.doubles.registry import (
    ARCHITECTURE,
    CONFIG,
    INDEX,
    LAYER,
    MANIFEST,
    Answer,
    Registry,
    Request,
    digest_of,
    error,
    tar_of,
)

ONE = tar_of({"etc/one": b"1", "both": b"lower"})
TWO = tar_of({"etc/two": b"2", "both": b"upper"})
PLAIN = "application/vnd.oci.image.layer.v1.tar"
ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"


def test_a_pulled_image_is_known_by_all_its_names_and_mounts(double: Registry, home: Path, form: str) -> None:
    pushed = double.push("lib/app", "1", [ONE, TWO], config={"Env": ["A=1"], "User": "1000"})
    name = double.reference("lib/app:1")

    async def story() -> None:
        async with opened(home, form=form) as store:
            record = await store.pull(name)
            assert (record.id, record.tags, record.digests) == (
                pushed.config,
                (name,),
                (double.reference(f"lib/app@{pushed.manifest}"),),
            )
            assert record.config == ImageConfig(
                architecture=ARCHITECTURE, user="1000", env=("A=1",), diff_ids=pushed.diff_ids
            )
            assert (record.layers, record.manifest_digest) == (pushed.diff_ids, pushed.manifest)
            for other in (
                record.id,
                record.id[7:],
                record.id[7:20],
                record.digests[0],
                f"{name}@{pushed.manifest}",
            ):
                assert store.find(other) == record
            assert store.all() == (record,)
            assert json.loads(await store.document(record.id))["config"]["User"] == "1000"
            rootfs = await store.acquire_rootfs(ContainerId("c"), record.id, home)
            with shown(rootfs, home) as root:
                assert files(root) == {"etc/one": b"1", "etc/two": b"2", "both": b"upper"}
            await store.release_rootfs(ContainerId("c"))
            await store.remove(name)
            assert store.all() == ()
        assert content(home) == []

    run(story)


@pytest.mark.parametrize(
    ("kind", "compress"), [(PLAIN, bytes), (ZSTD, zstandard.compress), (LAYER, zstandard.compress)]
)  # fmt: skip
def test_layers_are_what_their_content_says(
    double: Registry, home: Path, kind: str, compress: object
) -> None:
    assert callable(compress)
    double.push("app", "1", [ONE], compress=compress, kind=kind)

    async def story() -> None:
        async with opened(home) as store:
            record = await store.pull(double.reference("app:1"))
            assert record.layers == (digest_of(ONE),)
            assert (home / "images/layers" / f"{record.layers[0][7:]}.tar").read_bytes() == ONE

    run(story)


def test_the_stored_layer_is_the_tar_itself_and_an_index_beside_it(double: Registry, home: Path) -> None:
    double.push("app", "1", [ONE])

    async def story() -> None:
        async with opened(home, form="erofs") as store:
            record = await store.pull(double.reference("app:1"))
            stem = f"layers/{record.layers[0][7:]}"
            documents = sorted(f"documents/{digest[7:]}" for digest in (record.id, record.manifest_digest))
            layer = [f"{stem}.{suffix}" for suffix in ("erofs", "implied", "tar")]
            assert content(home) == sorted([*layer, *documents])
            sizes = [path.stat().st_blocks * 512 for path in (home / "images").rglob("*") if path.is_file()]
            assert (await store.filesystem_usage()).used_bytes == sum(sizes) == record.size

    run(story)


def test_a_tag_without_change_is_asked_for_by_head_alone(double: Registry, home: Path) -> None:
    double.push("app", "1", [ONE])

    async def story() -> None:
        async with opened(home) as store:
            first = await store.pull(double.reference("app:1"))
            double.requests.clear()
            assert await store.pull(double.reference("app:1")) == first
        assert [(request.method, request.path) for request in double.requests] == [
            ("HEAD", "/v2/app/manifests/1")
        ]

    run(story)


@pytest.mark.parametrize("status", [403, 404, 405, 429, 500])
def test_a_registry_that_refuses_head_is_asked_by_get(double: Registry, home: Path, status: int) -> None:
    double.push("app", "1", [ONE])
    double.on("manifests", lambda _request, _right: error(status), methods=("HEAD",))

    async def story() -> None:
        async with opened(home) as store:
            first = await store.pull(double.reference("app:1"))
            assert await store.pull(double.reference("app:1")) == first

    run(story)


@pytest.mark.parametrize("header", ["Docker-Content-Digest", "Content-Type"])
@pytest.mark.parametrize("value", ["", "text/html"])
def test_missing_and_odd_headers_do_no_harm(double: Registry, home: Path, header: str, value: str) -> None:
    def react(_request: Request, right: Answer) -> Answer:
        right.headers[header] = value
        return right

    pushed = double.push("app", "1", [ONE])
    double.on("manifests", react, methods=("GET", "HEAD"))

    async def story() -> None:
        async with opened(home) as store:
            record = await store.pull(double.reference("app:1"))
            assert (record.id, record.digests) == (
                pushed.config,
                (double.reference(f"app@{pushed.manifest}"),),
            )

    run(story)


def test_a_tag_that_moved_gives_a_new_image_and_leaves_the_old_one_its_digest(
    double: Registry, home: Path
) -> None:
    double.push("app", "1", [ONE])
    name = double.reference("app:1")

    async def story() -> None:
        async with opened(home) as store:
            old = await store.pull(name)
            double.push("app", "1", [TWO])
            new = await store.pull(name)
            left = store.find(old.id)
            assert left is not None
            assert (new.id != old.id, new.tags, left.tags, left.digests) == (True, (name,), (), old.digests)
            assert store.find(name) == new

    run(story)


def test_one_image_under_many_names_is_one_entry(double: Registry, home: Path) -> None:
    pushed = double.push("app", "1", [ONE])
    double.push("app", "2", [ONE])
    double.push("other", "x", [ONE])

    async def story() -> None:
        async with opened(home) as store:
            names = [double.reference(name) for name in ("app:1", "app:2", "other:x")]
            for name in names:
                await store.pull(name)
            (record,) = store.all()
            assert record.tags == tuple(names)
            assert record.digests == tuple(
                double.reference(f"{repository}@{pushed.manifest}") for repository in ("app", "other")
            )
            assert len(double.asked(f"blobs/{pushed.layers[0]}")) == 1
            await asyncio.gather(*(store.remove(names[1]) for _ in range(5)))
            assert store.all() == ()
            await store.remove(names[1])
            await store.remove("sha256:" + "0" * 64)

    run(story)


def test_a_pull_by_digest_gives_that_digest_and_no_tag(double: Registry, home: Path) -> None:
    pushed = double.push("app", "1", [ONE])
    name = double.reference(f"app@{pushed.manifest}")

    async def story() -> None:
        async with opened(home) as store:
            record = await store.pull(name)
            assert (record.tags, record.digests) == ((), (name,))
            assert await store.pull(double.reference(f"app:nonsense@{pushed.manifest}")) == record

    run(story)


def test_the_index_digest_is_the_repo_digest_and_the_nodes_image_is_chosen(
    double: Registry, home: Path
) -> None:
    other = double.push("app", "", [TWO], architecture="s390x")
    mine = double.push("app", "", [ONE])

    def entry(manifest: str, architecture: str, system: str = "linux", **more: object) -> dict[str, object]:
        size = len(double.manifests[f"app@{manifest}"][1])
        where = {"os": system, "architecture": architecture}
        return {"mediaType": MANIFEST, "digest": manifest, "size": size, "platform": where, **more}

    mark = {"vnd.docker.reference.type": "attestation-manifest"}
    inner = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry(mine.manifest, ARCHITECTURE)]}
    nested = double.put_manifest("app", "", inner, INDEX)
    size = len(double.manifests[f"app@{nested}"][1])
    outer = {
        "schemaVersion": 2,
        "manifests": [
            entry(other.manifest, "unknown", "unknown", annotations=mark),
            entry(other.manifest, "s390x"),
            {"mediaType": INDEX, "digest": nested, "size": size},
        ],
    }
    top = double.put_manifest("app", "multi", outer, INDEX)

    async def story() -> None:
        async with opened(home) as store:
            record = await store.pull(double.reference("app:multi"))
            assert (record.id, record.digests) == (mine.config, (double.reference(f"app@{top}"),))
            assert double.asked(other.manifest) == []

    run(story)


def test_docker_manifests_are_taken_too(double: Registry, home: Path) -> None:
    pushed = double.push("app", "1", [ONE])
    document = json.loads(double.manifests["app:1"][1])
    docker = "application/vnd.docker.distribution.manifest.v2+json"
    document["mediaType"] = docker
    document["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json"
    document["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    double.put_manifest("app", "1", document, docker)

    async def story() -> None:
        async with opened(home) as store:
            assert (await store.pull(double.reference("app:1"))).id == pushed.config

    run(story)


def test_an_image_without_layers_has_an_empty_root(double: Registry, home: Path, form: str) -> None:
    double.push("app", "1", [])

    async def story() -> None:
        async with opened(home, form=form) as store:
            record = await store.pull(double.reference("app:1"))
            rootfs = await store.acquire_rootfs(ContainerId("c"), record.id, home)
            with shown(rootfs, home) as root:
                assert files(root) == {}
            await store.release_rootfs(ContainerId("c"))

    run(story)


def test_a_layer_that_an_image_has_twice_is_stacked_once(double: Registry, home: Path, form: str) -> None:
    double.push("app", "1", [ONE, TWO, ONE])

    async def story() -> None:
        async with opened(home, form=form) as store:
            record = await store.pull(double.reference("app:1"))
            rootfs = await store.acquire_rootfs(ContainerId("c"), record.id, home)
            with shown(rootfs, home) as root:
                assert files(root)["both"] == b"lower"
            await store.release_rootfs(ContainerId("c"))

    run(story)


def test_a_hundred_callers_fetch_everything_once(double: Registry, home: Path) -> None:
    pushed = double.push("app", "1", [ONE, TWO])

    async def story() -> None:
        async with opened(home) as store:
            name = double.reference("app:1")
            records = await asyncio.gather(*(store.pull(name) for _ in range(100)))
            assert len({record.id for record in records}) == 1
        assert [len(double.asked(f"blobs/{layer}")) for layer in pushed.layers] == [1, 1]

    run(story)


def test_images_that_share_layers_fetch_each_once_even_at_the_same_time(double: Registry, home: Path) -> None:
    shared = [tar_of({f"shared{number}": b"x" * 1000}) for number in range(5)]
    for number in range(10):
        double.push(f"app{number}", "1", [*shared, tar_of({f"own{number}": b"y"})])

    async def story() -> None:
        async with opened(home) as store:
            await asyncio.gather(*(store.pull(double.reference(f"app{number}:1")) for number in range(10)))
            layers = list((home / "images/layers").glob("*.tar"))
            assert (len(store.all()), len(layers)) == (10, 15)
            asked = [request.path.rpartition("/")[2] for request in double.asked("blobs")]
            assert len(asked) == len(set(asked)) == 25
            for number in range(9):
                await store.remove(double.reference(f"app{number}:1"))
            assert len(list((home / "images/layers").glob("*.tar"))) == 6

    run(story)


def test_progress_is_visible_while_layers_come(double: Registry, home: Path) -> None:
    hold = threading.Event()

    def react(_request: Request, right: Answer) -> Answer:
        right.hold = hold
        return right

    big = tar_of({"big": bytes(range(256)) * 4096})
    pushed = double.push("app", "1", [big], compress=bytes, kind=PLAIN)
    double.on(f"blobs/{pushed.layers[0]}", react)

    async def story() -> None:
        async with opened(home) as store:
            pulling = asyncio.ensure_future(store.pull(double.reference("app:1")))
            while not double.asked(f"blobs/{pushed.layers[0]}"):
                await asyncio.sleep(0.01)
            while store.progress()[0].stage != "layers":
                await asyncio.sleep(0.01)
            (progress,) = store.progress()
            assert (progress.reference, progress.endpoint, progress.credential_source, progress.total) == (
                double.reference("app:1"),
                f"{double.url}/v2",
                "anonymous",
                len(big),
            )
            assert [layer.digest for layer in progress.layers] == list(pushed.layers)
            hold.set()
            await pulling
            assert [(ended.stage, ended.received) for ended in store.progress()] == [("done", len(big))]

    run(story)


def test_what_is_not_in_the_store_is_absent(home: Path) -> None:
    async def story() -> None:
        async with opened(home) as store:
            assert (store.find("nothing"), store.all()) == (None, ())
            with pytest.raises(Absent, match="image 'nothing' is not in the store: pull it first"):
                store.require("nothing")
            usage = await store.filesystem_usage()
            assert (usage.used_bytes, usage.inodes_used, usage.mountpoint.is_dir()) == (0, 0, True)
            assert (await store.usage_of(home / "nothing")).used_bytes == 0

    run(story)


def test_pinned_images_say_so(double: Registry, home: Path) -> None:
    double.push("base/app", "1", [ONE])
    double.push("app", "1", [TWO])

    async def story() -> None:
        async with opened(home, pinned=("*/base/*",)) as store:
            pulled = [await store.pull(double.reference(name)) for name in ("base/app:1", "app:1")]
            assert [record.pinned for record in pulled] == [True, False]
            await store.remove(double.reference("base/app:1"))  # it only keeps kubelet's collection off
            assert [record.id for record in store.all()] == [pulled[1].id]

    run(story)


def test_the_configuration_digest_is_the_id(double: Registry, home: Path) -> None:
    pushed = double.push("app", "1", [ONE])
    assert CONFIG in double.manifests["app:1"][1].decode()

    async def story() -> None:
        async with opened(home) as store:
            assert (await store.pull(double.reference("app:1"))).id == pushed.config

    run(story)
