"""The kernel's view of our indexes is the tree that GNU tar makes of the same archives, name by name.

Content, mode, owner, times, attributes, links and devices are compared. `CRISP_LAYER_EXAMPLES=10000` is the
long run.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.images import layout
from tests.images.catalogue import unpacked
from tests.layers.generated import archives
from tests.layers.gnutar import compare

EXAMPLES = int(os.environ.get("CRISP_LAYER_EXAMPLES", "150"))


_PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"  # the tests' is Debian's
TREES = {
    "busybox": ["busybox"],
    "coreutils": ["coreutils"],
    "perl": ["perl-base"],
    "python": [_PYTHON, f"{_PYTHON}-minimal", f"lib{_PYTHON}-minimal", f"lib{_PYTHON}-stdlib"],
}


@pytest.mark.parametrize("name", TREES)
def test_debian_packages_look_as_gnu_tar_unpacks_them(name: str, tmp_path: Path) -> None:
    listing = subprocess.run(["dpkg", "-L", *TREES[name]], check=True, capture_output=True, text=True).stdout
    # /bin and the like are links on a merged system; by their real place the names are the same to both.
    paths = {str(Path(p).parent.resolve() / Path(p).name) for p in listing.splitlines() if os.path.lexists(p)}
    names = tmp_path / "names"
    names.write_text("".join(f".{p}\n" for p in sorted(paths) if p != "/"))
    tar = tmp_path / "layer.tar"
    arguments = ["--no-recursion", "--format=pax", "--xattrs", "--xattrs-include=*", "-C", "/"]
    subprocess.run(["tar", *arguments, "-cf", tar, "-T", names], check=True, capture_output=True)
    assert compare(tar, tmp_path / "by-tar") >= len(paths)


def test_debians_nginx_looks_as_gnu_tar_unpacks_it(tmp_path: Path) -> None:
    tar = tmp_path / "layer.tar"
    tops = [argument for name in ("nginx", "nginx-common") for argument in ("-C", unpacked(name), ".")]
    subprocess.run(["tar", "--format=pax", "-cf", tar, *tops], check=True, capture_output=True)
    assert compare(tar, tmp_path / "by-tar") > 30


def test_every_layer_of_the_tests_images_looks_as_gnu_tar_unpacks_it(
    image_layout: Path, tmp_path: Path
) -> None:
    blobs = {
        layer["digest"]
        for descriptor in layout.read_names(image_layout).values()
        for manifest in manifests(image_layout, descriptor)
        for layer in manifest["layers"]
    }
    tar = tmp_path / "layer.tar"
    for digest in sorted(blobs):
        tar.write_bytes(gzip.decompress(layout.blob_path(image_layout, digest).read_bytes()))
        compare(tar, tmp_path / "by-tar")
    assert len(blobs) > 10


def manifests(top: Path, descriptor: dict[str, Any]) -> list[dict[str, Any]]:
    """Of an image, or of each platform of an index."""
    content = json.loads(layout.blob_path(top, descriptor["digest"]).read_bytes())
    children = content.get("manifests")
    return [content] if children is None else [m for child in children for m in manifests(top, child)]


@pytest.mark.parametrize("form", ["gnu", "pax", "oldgnu", "ustar", "v7"])
def test_every_format_that_gnu_tar_writes_is_read(form: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub" / ("long" * 20 if form in ("gnu", "pax", "oldgnu") else "d")).mkdir(parents=True)
    (source / "sub/file").write_bytes(os.urandom(5000))
    os.link(source / "sub/file", source / "again")
    (source / "link").symlink_to("sub/file")
    os.utime(source / "sub/file", ns=(0, 1_600_000_000_123_456_789))
    arguments = [f"--format={form}", "-C", str(source)]
    if form not in ("ustar", "v7"):
        with (source / "holes").open("wb") as file:
            for place in range(40):
                file.seek(place * 65536)
                file.write(bytes([place]) * 4096)
            file.truncate(1 << 23)
        arguments.append("--sparse")
    if form != "v7":
        os.mkfifo(source / "fifo")
        os.mknod(source / "null", 0o20666, os.makedev(1, 3))
    if form == "pax":
        os.setxattr(source / "sub/file", "user.key", b"value\n\0")
        os.setxattr(source / "sub", "trusted.key", b"")
        arguments += ["--xattrs", "--xattrs-include=*"]
    tar = tmp_path / "layer.tar"
    subprocess.run(["tar", *arguments, "-cf", tar, "."], check=True, capture_output=True)
    assert compare(tar, tmp_path / "by-tar") >= 5


@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
def test_every_sparse_format_that_gnu_tar_writes_is_read(version: str, tmp_path: Path) -> None:
    with (tmp_path / "holes").open("wb") as file:
        for place in range(30):
            file.seek(place * 65536 + 4096 * (place % 3))
            file.write(os.urandom(4096))
        file.seek(1 << 22)
        file.write(b"odd end")
    tar = tmp_path / "layer.tar"
    arguments = ["--format=pax", "--sparse", f"--sparse-version={version}", "-C", str(tmp_path)]
    subprocess.run(["tar", *arguments, "-cf", tar, "holes"], check=True, capture_output=True)
    assert tar.stat().st_size < 1 << 20
    assert compare(tar, tmp_path / "by-tar") == 2


@pytest.mark.timeout(120 + EXAMPLES)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=(Phase.generate,),  # to shrink one takes minutes
    derandomize=EXAMPLES <= 500,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
@given(tar=archives())
def test_generated_trees_look_as_gnu_tar_unpacks_them(tar: bytes, tmp_path: Path) -> None:
    path = tmp_path / "layer.tar"
    path.write_bytes(tar)
    compare(path, tmp_path / "by-tar")
