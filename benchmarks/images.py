"""The images of a run: kubelet's pause, a small workload, and 150 MB in small files, on a loopback registry.

Their content is made up, the same at each run, and compresses about as programs and their data do.
"""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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
HOSTS = ("registry.k8s.io", "registry.example")

FILES_SIZE = 150_000_000  # bytes, uncompressed
_LAYERS = 4
_AVERAGE = 10_000  # bytes of a file
_POOL = 8 << 20
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


def _small_files(layer: int) -> list[Entry]:
    chance = random.Random(layer)
    words = [chance.randbytes(chance.randint(2, 9)).hex() for _ in range(4000)]
    pool = " ".join(chance.choices(words, k=_POOL // 8)).encode()
    left = FILES_SIZE // _LAYERS
    entries: list[Entry] = []
    while left > 0:
        size = min(left, int(chance.expovariate(1 / _AVERAGE)))
        at = chance.randrange(len(pool) - size)
        number = len(entries)
        path = f"usr/lib/bench{layer}/d{number // 40}/f{number}"
        entries.append(Entry(path=path, mode=0o644, content=pool[at : at + size]))
        left -= size
    return entries


def _written() -> Path:
    told = hashlib.sha256(Path(__file__).read_bytes())
    told.update(_BUSYBOX.resolve().read_bytes())
    top = cache() / f"bench-registry-{told.hexdigest()[:16]}"
    if top.exists():
        return top
    base = _busybox()
    made = [
        Image(names=(WORKLOAD,), layers=[base], config={"Cmd": ["/bin/init", "sleep", "1000000"]}),
        Image(names=(SMALL_FILES,), layers=[base, *map(_small_files, range(_LAYERS))]),
        *(image for image in catalogue() if PAUSE in image.names),
    ]
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache(), prefix="bench.") as scratch:
        written, stored = Path(scratch, "layout"), Path(scratch, "registry")
        layout.write(written, made)
        with serving(stored) as registry:
            for name, descriptor in layout.read_names(written).items():
                registry.push(written, name, descriptor)
        stored.rename(top)
    return top


@contextmanager
def registry() -> Iterator[Registry]:
    """A registry that has them, made once and kept in the tests' cache."""
    with serving(_written()) as running:
        yield running
