"""Images of other runtimes' stores, read where they lie: a real containerd's, and Docker's overlay2."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from oci.workload import ContainerId
from shim.images.foreign import Taken
from tests.component.images.rig import content, failure, files, opened, run, shown
from tests.doubles.registry import ARCHITECTURE, INDEX, MANIFEST, Registry, digest_of, tar_of
from tests.images import containerd
from tests.images.docker_store import write_store

ONE = tar_of({"one": b"1" * 5000, "etc/x": b"x"})
TWO = tar_of({"two": b"2"})


def plain(taken: Taken) -> tuple[tuple[str, ...], str, str]:
    return taken.names, taken.image_id or "", taken.problem


# containerd


def test_what_a_containerd_pulled_is_taken_with_its_names_and_digests(
    double: Registry, home: Path, tmp_path: Path
) -> None:
    app = double.push("app", "1", [ONE, TWO])
    _, body = double.manifests["app:1"]
    foreign = {"os": "linux", "architecture": "s390x"}
    mine = {"os": "linux", "architecture": ARCHITECTURE}
    theirs = double.push("app", "", [ONE], architecture="s390x")
    size = len(double.manifests[f"app@{theirs.manifest}"][1])
    first = {"mediaType": MANIFEST, "digest": theirs.manifest, "size": size, "platform": foreign}
    entries = [first, {"mediaType": MANIFEST, "digest": app.manifest, "size": len(body), "platform": mine}]
    index = double.put_manifest(
        "app", "multi", {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}, INDEX
    )
    other = double.push("other", "1", [TWO])
    broken = double.push("broken", "1", [tar_of({"lost": b""})])
    with containerd.running(tmp_path / "containerd") as running:
        for name, namespace in (("app:multi", "k8s.io"), ("other:1", "default"), ("broken:1", "k8s.io")):
            running.ctr(
                "content",
                "fetch",
                "--plain-http",
                "--platform",
                f"linux/{ARCHITECTURE}",
                double.reference(name),
                namespace=namespace,
            )
        running.ctr("images", "tag", double.reference("app:multi"), "docker.io/library/again:2")
        running.ctr("images", "tag", double.reference("app:multi"), app.config)  # as its CRI plugin does
        # also while it runs
        whole = tmp_path / "copy"
        shutil.copytree(running.root, whole)
    (whole / f"io.containerd.content.v1.content/blobs/sha256/{broken.layers[0][7:]}").unlink()
    names = (double.reference("app:multi"), "docker.io/library/again:2", app.config)

    async def story() -> None:
        async with opened(home) as store:
            listed = await store.import_store("containerd", whole, dry_run=True)
            assert {one.digest: (set(one.names), bool(one.problem)) for one in listed} == {
                index: (set(names), False),
                other.manifest: ({double.reference("other:1")}, False),
                broken.manifest: ({double.reference("broken:1")}, True),
            }
            assert content(home) == []
            taken = await store.import_store("containerd", whole, images=["again:2", app.config])
            assert [one.image_id for one in taken] == [app.config]
            record = store.require("again:2")
            assert (record.id, set(record.tags), set(record.digests), record.manifest_digest) == (
                app.config,
                set(names[:2]),
                {f"{double.address}/app@{index}", f"docker.io/library/again@{index}"},
                app.manifest,
            )
            rootfs = await store.acquire_rootfs(ContainerId("c"), record.id, home)
            with shown(rootfs, home) as root:
                assert files(root) == {"one": b"1" * 5000, "etc/x": b"x", "two": b"2"}
            await store.release_rootfs(ContainerId("c"))
            everything = await store.import_store("containerd", whole)
            (problem,) = [one.problem for one in everything if one.problem]
            lost = f"blobs/sha256/{broken.layers[0][7:]}"
            assert problem.endswith(
                f"broken:1: 1 of 1 layers are not in the content store ({lost}); "
                "containerd drops them with discard_unpacked_layers"
            )
            assert {image.id for image in store.all()} == {app.config, other.config}
            nothing = await failure(store.import_store("containerd", whole, images=["nginx"]))
            assert nothing.message.endswith("there is no image 'nginx'; --dry-run lists what there is")

    run(story)


def test_a_directory_that_is_no_store_is_refused(home: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    (empty / "io.containerd.content.v1.content").mkdir(parents=True)
    meta = empty / "io.containerd.metadata.v1.bolt/meta.db"

    async def story() -> None:
        async with opened(home) as store:
            said = [(await failure(store.import_store("containerd", empty))).message]
            meta.parent.mkdir()
            meta.write_bytes(b"x" * 100_000)
            said.append((await failure(store.import_store("containerd", empty))).message)
            said.append((await failure(store.import_store("containerd", tmp_path / "no"))).message)
            said.append((await failure(store.import_store("docker", empty))).message)
            (empty / "image/devicemapper").mkdir(parents=True)
            said.append((await failure(store.import_store("docker", empty))).message)
            said.append((await failure(store.import_store("podman", empty))).message)
        repositories = empty / "image/overlay2/repositories.json"
        assert said == [
            f"containerd's store {empty}: {meta}: no such file or directory",
            f"containerd's store {empty}: {meta}: not a bbolt database, or both of its headers are damaged",
            f"containerd's store {tmp_path}/no: {tmp_path}/no/io.containerd.content.v1.content: "
            "no such file or directory",
            f"Docker's store {empty}: {repositories} is not there",
            f"Docker's store {empty}: {repositories} is not there; of Docker's drivers only overlay2 can be "
            "read, there is devicemapper",
            "kind: 'podman' is neither containerd nor docker",
        ]

    run(story)


# Docker


def rich_layer() -> bytes:
    """What tars of images have: links, directories, a whiteout, long and odd names, holes between blocks."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, text in (
            ("dir", tarfile.DIRTYPE, b""),
            ("dir/file", tarfile.REGTYPE, b"content" * 1000),
            ("dir/link", tarfile.SYMTYPE, b""),
            ("dir/hard", tarfile.LNKTYPE, b""),
            (".wh.one", tarfile.REGTYPE, b""),
            ("n" * 90 + "/" + "m" * 90, tarfile.REGTYPE, b"long"),
            ("empty", tarfile.REGTYPE, b""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.size, member.mode = kind, len(text), 0o755
            if kind == tarfile.SYMTYPE:
                member.linkname = "file"
            if kind == tarfile.LNKTYPE:
                member.linkname = "dir/file"
            tar.addfile(member, io.BytesIO(text))
    return buffer.getvalue() + b"\0" * 512


RICH = rich_layer()


def config_of(*layers: bytes, **more: Any) -> bytes:
    return json.dumps(
        {
            "architecture": ARCHITECTURE,
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
            **more,
        }
    ).encode()


def test_docker_s_layers_are_put_together_again_byte_by_byte(
    double: Registry, home: Path, tmp_path: Path
) -> None:
    top = tmp_path / "docker"
    digest = digest_of(b"manifest")
    one = write_store(
        top, config_of(ONE, RICH), [ONE, RICH], ["app:1", f"app@{digest}", "r.example:5000/app:2"]
    )
    two = write_store(top, config_of(ONE, TWO), [ONE, TWO], ["base:1"])
    bad = write_store(top, config_of(TWO, architecture="s390x"), [TWO], ["foreign:1"])

    async def story() -> None:
        async with opened(home) as store:
            listed = await store.import_store("docker", top, dry_run=True)
            assert [(one_.digest, bool(one_.problem)) for one_ in listed] == [
                (one, False), (two, False), (bad, True)
            ]  # fmt: skip
            taken = await store.import_store("docker", top)
            assert [one_.image_id for one_ in taken] == [one, two, None]
            assert "the image is for linux/s390x" in taken[2].problem
            record = store.require("app:1")
            assert (record.tags, record.digests) == (
                ("docker.io/library/app:1", "r.example:5000/app:2"),
                (f"docker.io/library/app@{digest}",),
            )
            rootfs = await store.acquire_rootfs(ContainerId("c"), record.id, home)
            with shown(rootfs, home) as root:
                found = files(root)
                assert (found["dir/file"], found["dir/link"], "one" in found) == (
                    b"content" * 1000,
                    b"file",
                    False,
                )
                assert found["n" * 90 + "/" + "m" * 90] == b"long"
            await store.release_rootfs(ContainerId("c"))

    run(story)


def spoil_content(top: Path) -> None:
    (path,) = top.glob("overlay2/*/diff/two")
    path.write_bytes(b"3")


def shorten_content(top: Path) -> None:
    (path,) = top.glob("overlay2/*/diff/two")
    path.write_bytes(b"")


def link_content(top: Path) -> None:
    (path,) = top.glob("overlay2/*/diff/two")
    path.unlink()
    path.symlink_to("/etc/hostname")


def drop_split(top: Path) -> None:
    (path,) = top.glob("image/overlay2/layerdb/sha256/*/tar-split.json.gz")
    path.unlink()


def spoil_split(top: Path) -> None:
    (path,) = top.glob("image/overlay2/layerdb/sha256/*/tar-split.json.gz")
    path.write_bytes(path.read_bytes()[:-9])


def lead_away(top: Path) -> None:
    (path,) = top.glob("image/overlay2/layerdb/sha256/*/cache-id")
    path.write_text("../../../etc")


def spoil_config(top: Path) -> None:
    (path,) = top.glob("image/overlay2/imagedb/content/sha256/*")
    path.write_bytes(path.read_bytes() + b" ")


DAMAGES = {
    spoil_content: "layer 1: its tar has digest ",
    shorten_content: "'two' has 0 bytes, the layer 1",
    link_content: "'two' is missing",
    drop_split: "tar-split.json.gz is not there, without it the layer cannot be made again as it was",
    spoil_split: "tar-split.json.gz is damaged: ",
    lead_away: "cache-id names no layer",
    spoil_config: "has another digest than its name says",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_docker_store_gives_a_reason_and_leaves_nothing(
    home: Path, tmp_path: Path, damage: Any
) -> None:
    top = tmp_path / "docker"
    write_store(top, config_of(TWO), [TWO], ["app:1"])
    damage(top)

    async def story() -> None:
        async with opened(home) as store:
            (taken,) = await store.import_store("docker", top)
            assert taken.image_id is None
            assert DAMAGES[damage] in taken.problem
            assert content(home) == []

    run(story)
