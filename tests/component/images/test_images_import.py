"""Archives: OCI layouts and docker-archives, as directories and tars, whole, compressed and damaged."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from oci.errors import BadInput, CrispError
from oci.workload import ContainerId
from tests.component.images.archives import entry, write_layout
from tests.component.images.rig import content, failure, files, opened, run, shown
from tests.doubles.registry import ARCHITECTURE, INDEX, Registry, tar_of

ONE = tar_of({"one": b"1", "etc/x": b"x" * 5000})
TWO = tar_of({"two": b"2"})
EMPTY = '{"schemaVersion": 2, "manifests": []}'


def write_docker(double: Registry, top: Path, config: str, layers: list[bytes], names: list[str]) -> Path:
    """A docker-archive as `docker save` wrote it for years: a directory a layer, links for equal layers."""
    top.mkdir()
    (top / f"{config[7:]}.json").write_bytes(double.blobs[config])
    paths = []
    for number, layer in enumerate(layers):
        (top / str(number)).mkdir()
        path = top / str(number) / "layer.tar"
        if layer in layers[:number]:
            path.symlink_to(f"../{layers.index(layer)}/layer.tar")
        else:
            path.write_bytes(layer)
        paths.append(f"{number}/layer.tar")
    manifest = [{"Config": f"{config[7:]}.json", "RepoTags": names, "Layers": paths}]
    (top / "manifest.json").write_text(json.dumps(manifest))
    return top


def packed(top: Path, compress: Callable[[bytes], bytes] | None = None) -> Path:
    path = top.with_suffix(".tar")
    with tarfile.open(path, "w") as tar:
        tar.add(top, arcname=".")
    if compress is not None:
        path.write_bytes(compress(path.read_bytes()))
    shutil.rmtree(top)
    return path


PACKINGS: dict[str, Callable[[Path], Path]] = {
    "directory": lambda top: top,
    "tar": packed,
    "gzip": lambda top: packed(top, gzip.compress),
    "zstd": lambda top: packed(top, zstandard.compress),
}


@pytest.mark.parametrize("packing", PACKINGS)
def test_an_oci_layout_is_imported_with_its_names_and_digests(
    double: Registry, home: Path, tmp_path: Path, form: str, packing: str
) -> None:
    app = double.push("app", "1", [ONE, TWO])
    other = double.push("other", "1", [TWO])
    top = write_layout(
        double,
        tmp_path / "layout",
        entry(double, app.manifest, "registry.example/app:1"),
        entry(double, app.manifest, "app:2"),
        entry(double, other.manifest, "justatag"),
    )
    archive = PACKINGS[packing](top)

    async def story() -> None:
        async with opened(home, form=form) as store:
            first, second = await store.import_archive(archive)
            assert (first.id, first.tags, first.digests, first.manifest_digest) == (
                app.config,
                ("registry.example/app:1", "docker.io/library/app:2"),
                (f"registry.example/app@{app.manifest}", f"docker.io/library/app@{app.manifest}"),
                app.manifest,
            )
            assert (second.id, second.tags, second.digests) == (other.config, (), ())
            rootfs = await store.acquire_rootfs(ContainerId("c"), first.id, home)
            with shown(rootfs, home) as root:
                assert files(root) == {"one": b"1", "etc/x": b"x" * 5000, "two": b"2"}
            await store.release_rootfs(ContainerId("c"))
            assert [record.id for record in await store.import_archive(archive)] == [first.id, second.id]
            for record in store.all():
                await store.remove(record.id)
            assert content(home) == []

    run(story)


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_docker_archive_is_imported_with_its_tags(
    double: Registry, home: Path, tmp_path: Path, packing: str
) -> None:
    pushed = double.push("app", "1", [ONE, TWO, ONE])
    top = write_docker(
        double, tmp_path / "saved", pushed.config, [ONE, TWO, ONE], ["app:1", "r.example/app:2"]
    )
    archive = PACKINGS[packing](top)

    async def story() -> None:
        async with opened(home) as store:
            (record,) = await store.import_archive(archive)
            assert (record.id, record.tags, record.digests, record.layers) == (
                pushed.config,
                ("docker.io/library/app:1", "r.example/app:2"),
                (),
                pushed.diff_ids,
            )

    run(story)


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive", "oci"])
def test_what_skopeo_writes_is_imported(double: Registry, home: Path, tmp_path: Path, kind: str) -> None:
    pushed = double.push("app", "1", [ONE, TWO])
    target = tmp_path / "written"
    subprocess.run(
        [
            "skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", "--quiet",
            f"docker://{double.reference('app:1')}", f"{kind}:{target}:r.example/app:1",
        ],
        check=True, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
    )  # fmt: skip

    async def story() -> None:
        async with opened(home) as store:
            (record,) = await store.import_archive(target)
            assert (record.tags, record.layers) == (("r.example/app:1",), pushed.diff_ids)

    run(story)


def test_names_given_replace_those_of_the_archive(double: Registry, home: Path, tmp_path: Path) -> None:
    app = double.push("app", "1", [ONE])
    top = write_layout(double, tmp_path / "layout", entry(double, app.manifest, "a:1"))

    async def story() -> None:
        async with opened(home) as store:
            (record,) = await store.import_archive(top, names=("mine", "r.example/x:2"))
            assert record.tags == ("docker.io/library/mine:latest", "r.example/x:2")

    run(story)


def test_the_nodes_platform_is_taken_from_an_index(double: Registry, home: Path, tmp_path: Path) -> None:
    mine = double.push("app", "", [ONE])
    other = double.push("app", "", [TWO], architecture="s390x")
    manifests = [
        entry(double, pushed.manifest, platform={"os": "linux", "architecture": architecture})
        for pushed, architecture in ((other, "s390x"), (mine, ARCHITECTURE))
    ]
    index = double.put_manifest("app", "", {"schemaVersion": 2, "manifests": manifests}, INDEX)
    top = write_layout(double, tmp_path / "layout", entry(double, index, "app:1", INDEX))

    async def story() -> None:
        async with opened(home) as store:
            (record,) = await store.import_archive(top)
            assert (record.id, record.digests) == (mine.config, (f"docker.io/library/app@{index}",))

    run(story)


def break_blob(name: str) -> Callable[[Path, Any], None]:
    def act(top: Path, pushed: Any) -> None:
        digest = {"config": pushed.config, "manifest": pushed.manifest, "layer": pushed.layers[0]}[name]
        path = top / "blobs/sha256" / digest[7:]
        body = path.read_bytes()
        path.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))

    return act


def remove_blob(name: str) -> Callable[[Path, Any], None]:
    def act(top: Path, pushed: Any) -> None:
        digest = {"config": pushed.config, "manifest": pushed.manifest, "layer": pushed.layers[0]}[name]
        (top / "blobs/sha256" / digest[7:]).unlink()

    return act


def link_blob(top: Path, pushed: Any) -> None:
    path = top / "blobs/sha256" / pushed.layers[0][7:]
    path.unlink()
    path.symlink_to("/etc/passwd")


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (break_blob("config"), "has another size or digest than its name says"),
        (break_blob("manifest"), "has another size or digest than its name says"),
        (break_blob("layer"), "what came has digest"),
        (remove_blob("config"), "is missing in the archive"),
        (remove_blob("layer"), "is missing in the archive"),
        (link_blob, "is missing in the archive"),
        (lambda top, _: (top / "index.json").unlink(), "neither an OCI layout"),
        (lambda top, _: (top / "index.json").write_text("{"), "index.json is not JSON"),
        (lambda top, _: (top / "index.json").write_text(EMPTY), "holds no image"),
    ],
)  # fmt: skip
def test_a_damaged_archive_is_refused_and_leaves_nothing(
    double: Registry, home: Path, tmp_path: Path, damage: Callable[[Path, Any], None], why: str
) -> None:
    pushed = double.push("app", "1", [ONE])
    top = write_layout(double, tmp_path / "layout", entry(double, pushed.manifest, "app:1"))
    damage(top, pushed)

    async def story() -> None:
        async with opened(home) as store:
            found = await failure(store.import_archive(top))
            assert isinstance(found, CrispError)
            assert f"archive {top}" in str(found)
            assert why in str(found)
            assert content(home) == []

    run(story)


def climbing() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("manifest.json")
        member.type, member.linkname = tarfile.SYMTYPE, "../../../../../etc/passwd"
        tar.addfile(member)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not a tar archive"),
        (b"x" * 3000, "not a tar archive"),
        (gzip.compress(b"x" * 3000, mtime=0), "not a tar archive"),  # the time would be in the test's name
        (gzip.compress(b"x" * 3000, mtime=0)[:20], "the gzip stream is truncated"),
        (climbing(), "neither an OCI layout"),
    ],
)  # fmt: skip
def test_what_is_no_archive_is_refused(home: Path, tmp_path: Path, body: bytes, why: str) -> None:
    path = tmp_path / "archive"
    path.write_bytes(body)

    async def story() -> None:
        async with opened(home) as store:
            with pytest.raises(BadInput, match=f"archive {path}: .*{why}"):
                await store.import_archive(path)
            with pytest.raises(BadInput, match="neither a file nor a directory"):
                await store.import_archive(tmp_path / "nowhere")
            assert content(home) == []

    run(story)
