"""Docker's overlay2 store as Docker writes it (its layer/filestore.go, image/fs.go, reference/)."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
import zlib
from pathlib import Path


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def write_store(top: Path, config: bytes, layers: list[bytes], names: list[str]) -> str:
    """Add an image whose layers are these tars; its id."""
    graph = top / "image/overlay2"
    image = _digest(config)
    (graph / "imagedb/content/sha256").mkdir(parents=True, exist_ok=True)
    (graph / "imagedb/content/sha256" / image[7:]).write_bytes(config)
    chain = ""
    for tar in layers:
        diff_id = _digest(tar)
        parent, chain = chain, _digest(f"{chain} {diff_id}".encode()) if chain else diff_id
        place = graph / "layerdb/sha256" / chain[7:]
        if place.exists():
            continue
        place.mkdir(parents=True)
        cache_id = hashlib.sha256(b"cache" + chain.encode()).hexdigest()
        (place / "diff").write_text(diff_id)
        (place / "cache-id").write_text(cache_id)
        if parent:
            (place / "parent").write_text(parent)
        size = _unpack(tar, top / "overlay2" / cache_id / "diff")
        (place / "size").write_text(str(size))
        (place / "tar-split.json.gz").write_bytes(gzip.compress(split(tar)))
    repositories = graph / "repositories.json"
    known = json.loads(repositories.read_text()) if repositories.exists() else {"Repositories": {}}
    for name in names:
        repository = name.partition("@")[0] if "@" in name else name.rpartition(":")[0]
        known["Repositories"].setdefault(repository, {})[name] = image
    repositories.write_text(json.dumps(known))
    return image


def split(tar: bytes) -> bytes:
    """What tar-split keeps of a tar: everything but the files' content, one JSON a line."""
    lines = []
    done = 0
    with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as archive:
        for member in archive:
            lines.append({"type": 2, "payload": base64.b64encode(tar[done : member.offset_data]).decode()})
            size = member.size if member.isreg() else 0
            content = tar[member.offset_data : member.offset_data + size]
            entry = {"type": 1, "size": size, "payload": base64.b64encode(_crc(content)).decode()}
            try:
                member.name.encode()
                entry["name"] = member.name
            except UnicodeEncodeError:
                entry["name_raw"] = base64.b64encode(os.fsencode(member.name)).decode()
            lines.append(entry)
            done = member.offset_data + size
    lines.append({"type": 2, "payload": base64.b64encode(tar[done:]).decode()})
    return b"".join(json.dumps({**line, "position": n}).encode() + b"\n" for n, line in enumerate(lines))


def _crc(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(8)  # Docker's is a CRC64; nobody reads it here


def _unpack(tar: bytes, top: Path) -> int:
    """The files of a layer as overlayfs wants them; the bytes of their content."""
    top.mkdir(parents=True)
    size = 0
    with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as archive:
        for member in archive:
            target = top / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.name.startswith(".wh."):
                os.mknod(target.with_name(target.name[4:]), stat.S_IFCHR | 0o600, os.makedev(0, 0))
            elif member.isdir():
                target.mkdir(exist_ok=True)
            elif member.issym():
                target.symlink_to(member.linkname)
            elif member.islnk():
                os.link(top / member.linkname, target)
            else:
                file = archive.extractfile(member)
                assert file is not None
                target.write_bytes(file.read())
                size += member.size
    return size
