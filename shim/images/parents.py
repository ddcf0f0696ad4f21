"""Directories that a layer has files in but does not describe: they must look as in the layers below.

A layer alone gives them mode 0755 and root as owner, and stacked on the others this would win: `/tmp` would
lose its sticky bit to a layer that only brings `tmp/file`. Runtimes that unpack layers one upon the other do
not have the question. Here the answer is one more layer at the top, of a few directories with the attributes
that they should have; nearly all images need none.

Blocking, for threads.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shim.images.layout import Layout

MOST = 20_000
"""Directories without a description beyond which an image is taken as it is: no tool makes such a one."""

_OPAQUE = "trusted.overlay.opaque"
_OVERLAY = ("trusted.overlay.", "user.overlay.")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerView:
    """A layer as a directory, and the paths in it that no entry describes (the root is b"")."""

    top: Path
    implied: frozenset[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    mode: int
    uid: int
    gid: int
    xattrs: tuple[tuple[str, bytes], ...] = ()


_DEFAULT = Attributes(mode=0o755, uid=0, gid=0)


def read_implied(layout: Layout, diff_id: str) -> frozenset[bytes]:
    """What a stored layer does not describe."""
    try:
        return frozenset(layout.implied(diff_id).read_bytes().split(b"\0"))
    except FileNotFoundError:
        return frozenset()


def encode_implied(implied: tuple[bytes, ...]) -> bytes:
    """The content of the file that `read_implied` reads; there is none for a layer that describes all."""
    return b"\0".join(implied)


def must_look(implied: Sequence[frozenset[bytes]]) -> bool:
    """Whether layers of an image, base first, may need a repair: a cheap no for nearly all."""
    described = False
    for number, paths in enumerate(implied):
        if number and any(paths):
            return sum(len(known) for known in implied) <= MOST
        if described and b"" in paths:
            return True
        described = described or b"" not in paths
    return False


def repair_tar(layers: Sequence[LayerView]) -> bytes | None:
    """The tar of the layer that must stand on top of `layers` (base first), None when none is needed."""
    wrong = sorted(
        {
            path
            for number, layer in enumerate(layers)
            if number
            for path in layer.implied
            if _effective(layers, path) not in (None, _DEFAULT) and _shown(layers, path) == _DEFAULT
        }
    )
    if not wrong:
        return None
    paths = sorted({ancestor for path in wrong for ancestor in _with_ancestors(path)})
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in paths:
            tar.addfile(_member(path, _effective(layers, path) or _DEFAULT))
    return buffer.getvalue()


def _with_ancestors(path: bytes) -> list[bytes]:
    found = [path]
    while path:
        path = path.rpartition(b"/")[0]
        found.append(path)
    return found


def _member(path: bytes, attributes: Attributes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(os.fsdecode(path) or ".")
    member.type = tarfile.DIRTYPE
    member.mode, member.uid, member.gid = attributes.mode, attributes.uid, attributes.gid
    member.pax_headers = {
        f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape") for name, value in attributes.xattrs
    }
    return member


def _shown(layers: Sequence[LayerView], path: bytes) -> Attributes | None:
    """What overlayfs shows: the uppermost layer that has the directory."""
    for layer in reversed(layers):
        found = _look(layer, path)
        if isinstance(found, Attributes):
            return found
        if found is _GONE:
            return None
    return None


def _effective(layers: Sequence[LayerView], path: bytes) -> Attributes | None:
    """What the directory should look like: as the uppermost layer that describes it says.

    None when it is no directory in the end.
    """
    seen = False
    for layer in reversed(layers):
        found = _look(layer, path)
        if found is _GONE:
            return _DEFAULT if seen else None
        if isinstance(found, Attributes):
            if path not in layer.implied:
                return found
            seen = True
            if _is_opaque(layer.top, path):
                return _DEFAULT
        if _covered(layer.top, path):
            return _DEFAULT if seen else None
    return _DEFAULT if seen else None


class _Gone:
    """The layer hides or replaces the path."""


_GONE = _Gone()


def _look(layer: LayerView, path: bytes) -> Attributes | _Gone | None:
    """The directory in one layer; None when the layer says nothing of it."""
    walked = layer.top
    for part in path.split(b"/") if path else ():
        walked = walked / os.fsdecode(part)
        try:
            status = walked.lstat()
        except FileNotFoundError:
            return None
        if not stat.S_ISDIR(status.st_mode):
            return _GONE
    status = walked.lstat()
    names = [name for name in os.listxattr(walked, follow_symlinks=False) if not name.startswith(_OVERLAY)]
    return Attributes(
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        xattrs=tuple((name, os.getxattr(walked, name, follow_symlinks=False)) for name in sorted(names)),
    )


def _covered(top: Path, path: bytes) -> bool:
    """Whether a directory above `path` is opaque in this layer: what is below it does not show."""
    return any(_is_opaque(top, ancestor) for ancestor in _with_ancestors(path)[1:])


def _is_opaque(top: Path, path: bytes) -> bool:
    directory = top / os.fsdecode(path)
    try:
        return os.getxattr(directory, _OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False
