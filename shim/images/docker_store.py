"""Images of Docker's overlay2 store, as they lie below its data root. Blocking, for threads."""

from __future__ import annotations

import json
import re
from pathlib import Path

from oci.errors import BadInput
from oci.manifest import Platform
from shim.images.archive import without_manifest
from shim.images.docker_layer import DockerLayer
from shim.images.foreign import Offer, Whole, digests_of, read_small
from shim.images.intake import Wanted
from shim.images.layout import Layout
from shim.images.resolving import sha256
from shim.images.settings import Limits

_GRAPH = Path("image/overlay2")
_CACHE_ID = re.compile(r"[0-9a-z]{1,128}(-init)?\Z")
_MOST_NAMES = 64 << 20


def offers(root: Path, layout: Layout, node: Platform, *, limits: Limits, what: str) -> list[Offer]:
    """Every image that has a name, with all of them. Raises BadInput (no such store)."""
    graph = root / _GRAPH
    if not (graph / "repositories.json").is_file():
        raise BadInput(f"{what}: {graph / 'repositories.json'} is not there{_advice(root)}")
    try:
        repositories = json.loads(read_small(graph / "repositories.json", _MOST_NAMES, what))["Repositories"]
        named = [(str(name), str(image)) for names in repositories.values() for name, image in names.items()]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as failure:
        raise BadInput(f"{what}: {graph / 'repositories.json'} is not what Docker writes") from failure
    names: dict[str, list[str]] = {}
    for name, image in sorted(named):
        names.setdefault(image, []).append(name)
    return [_offer(image, tuple(known), root, layout, node, limits, what) for image, known in names.items()]


def _advice(root: Path) -> str:
    if (root / "containerd/daemon").is_dir():
        return f"; its images are in containerd's store: --from containerd {root}/containerd/daemon"
    others = sorted(path.name for path in root.glob("image/*") if path.is_dir())
    return f"; of Docker's drivers only overlay2 can be read, there is {', '.join(others)}" if others else ""


def _offer(
    image: str,
    names: tuple[str, ...],
    root: Path,
    layout: Layout,
    node: Platform,
    limits: Limits,
    what: str,
) -> Offer:
    about = f"{what}: {names[0][:200]}"
    size = 0
    try:
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", image):
            raise BadInput(f"{about}: {image[:80]!r} is no image id")
        path = root / _GRAPH / "imagedb/content/sha256" / image.removeprefix("sha256:")
        body = read_small(path, limits.manifest, about)
        if sha256(body) != image:
            raise BadInput(f"{about}: {path} has another digest than its name says")
        resolved = without_manifest(body, node, what=about)
        diff_ids = resolved.config.diff_ids
        if len(diff_ids) > limits.layers:
            raise BadInput(f"{about}: {len(diff_ids)} layers, the limit is {limits.layers}")
        wanted = []
        chain = ""
        for number, diff_id in enumerate(diff_ids):
            chain = sha256(f"{chain} {diff_id}".encode()) if chain else diff_id
            job, bytes_ = _layer(root, chain, diff_id, layout, limits, f"{about}: layer {number + 1}")
            size += bytes_
            wanted.append(Wanted(diff_id=diff_id, blob=resolved.manifest.layers[number], job=job))
    except BadInput as failure:
        return Offer(names=names, digest=image, size=size, problem=failure.message)
    whole = Whole(resolved=resolved, wanted=tuple(wanted), digests=digests_of(names))
    return Offer(names=names, digest=image, size=size, whole=whole)


def _layer(
    root: Path, chain: str, diff_id: str, layout: Layout, limits: Limits, what: str
) -> tuple[DockerLayer, int]:
    place = root / _GRAPH / "layerdb/sha256" / chain.removeprefix("sha256:")
    if read_small(place / "diff", 200, what).decode("ascii", "replace").strip() != diff_id:
        raise BadInput(f"{what}: {place / 'diff'} names another diff id than the image")
    cache_id = read_small(place / "cache-id", 200, what).decode("ascii", "replace").strip()
    if not _CACHE_ID.match(cache_id):
        raise BadInput(f"{what}: {place / 'cache-id'} names no layer")
    split = place / "tar-split.json.gz"
    if not split.is_file():
        raise BadInput(
            f"{what}: {split} is not there, without it the layer cannot be made again as it was; "
            "`docker save` and `crisp import` may do"
        )
    files = root / "overlay2" / cache_id / "diff"
    if not files.is_dir():
        raise BadInput(f"{what}: {files} is not there")
    try:
        size = int(read_small(place / "size", 40, what))
    except ValueError:
        size = 0
    job = DockerLayer(split=split, files=files, diff_id=diff_id, layout=layout, limits=limits, what=what)
    return job, size
