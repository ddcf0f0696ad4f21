"""The images of a run: kubelet's pause, a small workload, and large ones of several shapes, on loopback.

Their content is made up, the same at each run, and compresses about as programs and their data do. A smoke
run has the large ones in small.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.images import layout
from tests.images.catalogue import images as catalogue
from tests.images.files import Entry, directory, hard_link, program, text
from tests.images.layout import Image
from tests.images.registry import Registry, serving
from tests.parts.build import cache

PAUSE = "registry.k8s.io/pause:3.10"
WORKLOAD = "registry.example/bench/workload:1"
SMALL_FILES = "registry.example/bench/small-files:1"
APPLICATION = "registry.example/bench/application:1"
MANY_FILES = "registry.example/bench/many-files:1"
SHARING = tuple(f"registry.example/bench/sharing-{number}:1" for number in range(10))
HOSTS = ("registry.k8s.io", "registry.example")

FILES_SIZE = 150_000_000  # bytes, uncompressed
_LAYERS = 4
_AVERAGE = 10_000  # bytes of a file
_POOL = 8 << 20
_APPLICATION = (70_000_000, 200_000_000, 300_000_000)  # bytes of its layers, uncompressed
_LARGE = 200_000  # bytes of a file of the application, on average
_MANY = 100_000  # files
_SHARED, _SHARED_SIZE = 5, 20_000_000  # layers, bytes of each
_SMOKE = 50  # how many times smaller a smoke run has them
_BUSYBOX = Path("/bin/busybox")
_APPLETS = ("sh", "sleep", "true", "cat", "ls")


def _busybox() -> list[Entry]:
    source = _BUSYBOX.resolve()
    return [
        *(directory(name) for name in ("dev", "etc", "proc", "sys", "run", "var")),
        directory("tmp", 0o1777),
        text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        text("etc/group", "root:x:0:\n"),
        *program(source, "bin/busybox"),
        *(hard_link(f"bin/{name}", "bin/busybox") for name in _APPLETS),
        # Hands signals on to its child and ends with it: a workload that stops when it is asked to.
        *program(Path("/usr/bin/catatonit"), "bin/init"),
    ]


def _files(layer: int, total: int, average: int, name: str) -> list[Entry]:
    """So many bytes in files of about that size, forty to a directory of usr/lib/NAME."""
    chance = random.Random(f"{name} {layer}")
    words = [chance.randbytes(chance.randint(2, 9)).hex() for _ in range(4000)]
    pool = " ".join(chance.choices(words, k=_POOL // 8)).encode()
    left = total
    entries: list[Entry] = []
    while left > 0:
        size = min(left, int(chance.expovariate(1 / average)), len(pool) - 1)
        at = chance.randrange(len(pool) - size)
        number = len(entries)
        path = f"usr/lib/{name}{layer}/d{number // 40}/f{number}"
        entries.append(Entry(path=path, mode=0o644, content=pool[at : at + size]))
        left -= size
    return entries


def _many(count: int) -> list[Entry]:
    """Files that are nearly nothing, a hundred to a directory."""
    return [text(f"srv/{n // 10_000}/{n // 100}/{n}", f"{n}\n") for n in range(count)]


def _images(scale: int) -> list[Image]:
    base = _busybox()
    run = {"Cmd": ["/bin/init", "sleep", "1000000"]}
    application = [_files(n, size // scale, _LARGE, "application") for n, size in enumerate(_APPLICATION)]
    application[0] += base
    shared = [_files(n, _SHARED_SIZE // scale, _AVERAGE, "shared") for n in range(_SHARED)]
    return [
        Image(names=(WORKLOAD,), layers=[base], config=run),
        Image(
            names=(SMALL_FILES,),
            layers=[
                base,
                *(_files(n, FILES_SIZE // _LAYERS // scale, _AVERAGE, "bench") for n in range(_LAYERS)),
            ],
        ),
        Image(names=(APPLICATION,), layers=application, config=run),
        Image(names=(MANY_FILES,), layers=[base, _many(_MANY // scale)], config=run),
        *(Image(names=(name,), layers=shared, config={"Labels": {"name": name}}) for name in SHARING),
        *(image for image in catalogue() if PAUSE in image.names),
    ]


def _written(scale: int) -> Path:
    told = hashlib.sha256(Path(__file__).read_bytes())
    told.update(_BUSYBOX.resolve().read_bytes())
    told.update(b"%d" % scale)
    top = cache() / f"bench-registry-{told.hexdigest()[:16]}"
    if top.exists():
        return top
    made = _images(scale)
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache(), prefix="bench.") as scratch:
        written, stored = Path(scratch, "layout"), Path(scratch, "registry")
        layout.write(written, made)
        with serving(stored) as registry:
            for name, descriptor in layout.read_names(written).items():
                registry.push(written, name, descriptor)
        (stored / "sizes.json").write_text(json.dumps({name: _sizes(written, name) for name in SHARING}))
        stored.rename(top)
    return top


def _sizes(written: Path, name: str) -> dict[str, tuple[int, int]]:
    """The bytes of each layer, compressed and not, by digest."""
    manifest = json.loads(layout.blob_path(written, layout.read_names(written)[name]["digest"]).read_bytes())
    sizes = {}
    for layer in manifest["layers"]:
        blob = layout.blob_path(written, layer["digest"])
        sizes[layer["digest"]] = (layer["size"], len(gzip.decompress(blob.read_bytes())))
    return sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """The registry of a run, and the bytes of all layers of SHARING, each counted once."""

    registry: Registry
    shared_compressed: int
    shared: int


def make(*, smoke: bool) -> Path:
    """What the registry of a run stores, made once and kept in the tests' cache, from downloads."""
    return _written(_SMOKE if smoke else 1)


@contextmanager
def registry(*, smoke: bool) -> Iterator[Served]:
    """A registry that has them."""
    top = make(smoke=smoke)
    layers: dict[str, tuple[int, int]] = {}
    for sizes in json.loads((top / "sizes.json").read_text()).values():
        layers |= sizes
    with serving(top) as running:
        yield Served(
            registry=running,
            shared_compressed=sum(compressed for compressed, _ in layers.values()),
            shared=sum(size for _, size in layers.values()),
        )
