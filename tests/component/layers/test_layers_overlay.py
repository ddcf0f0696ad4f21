"""Layers stacked by overlayfs against the same layers applied one after the other by hand."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from shim.kernel import layered, mount
from tests.layers import seen
from tests.layers.archives import END, directory, member


@contextlib.contextmanager
def stacked(tars: list[bytes], folder: Path) -> Iterator[Path]:
    """An overlay of the layers, the first at the bottom."""
    with ExitStack() as undo:
        lower = []
        for number, tar in enumerate(tars):
            path = folder / f"{number}.tar"
            path.write_bytes(tar)
            lower.append(str(undo.enter_context(seen.mounted(path, seen.index_of(tar)[0]))))
        target = folder / "merged"
        target.mkdir()
        undo.callback(target.rmdir)
        layered.mount_overlay(target, lower[::-1], options=("ro",))
        undo.callback(mount.unmount, target)
        yield target


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def applied(tars: list[bytes], folder: Path) -> seen.Tree:
    """The layers in one directory: what they hide goes first, then GNU tar puts what they have on top."""
    folder.mkdir()
    for tar in tars:
        path = folder.with_suffix(".tar")
        path.write_bytes(tar)
        names = subprocess.run(
            ["tar", "-tf", path], check=True, capture_output=True, text=True
        ).stdout.split()
        for name in names:
            above, _, last = name.rpartition("/")
            if last == ".wh..wh..opq":
                for child in (folder / above).iterdir() if (folder / above).is_dir() else ():
                    remove(child)
            elif last.startswith(".wh."):
                remove(folder / above / last[4:])
        for name in names:
            old = folder / name.rstrip("/")
            folders = old.is_dir() and not old.is_symlink()
            if os.path.lexists(old) and folders != name.endswith("/"):
                remove(old)
        arguments = ["--exclude=.wh.*", "--numeric-owner", "--delay-directory-restore", "--warning=none"]
        subprocess.run(["tar", *arguments, "-xpf", path, "-C", folder], check=True, capture_output=True)
    return seen.look(folder)


def comparable(tree: seen.Tree) -> seen.Tree:
    """Without directories' link counts, which an overlay does not keep, and the root's time."""
    tree = {n: replace(s, links=0) if stat.S_ISDIR(s.mode) else s for n, s in tree.items()}
    tree[b""] = replace(tree[b""], mtime=0)
    return tree


LOWER = b"".join(
    (
        directory(b"./"), directory(b"etc"), member(b"etc/a", b"a"), member(b"etc/b", b"b"),
        member(b"gone", b"g"), directory(b"opaque"), member(b"opaque/old", b"o"),
        directory(b"opaque/deep"), member(b"opaque/deep/x", b"x"), directory(b"again"),
        member(b"again/old", b"o"), directory(b"tree"), directory(b"tree/sub"), member(b"tree/sub/f", b"f"),
        member(b"becomes-dir", b"1"), directory(b"becomes-file"), member(b"becomes-file/x", b"x"),
        member(b"h1", b"hard"), member(b"h2", flag=b"1", link=b"h1"),
        member(b"link", flag=b"2", link=b"etc/a"), END,
    )
)  # fmt: skip
UPPER = b"".join(
    (
        directory(b"./"), directory(b"etc", mode=0o700, mtime=5), member(b"etc/.wh.a"),
        member(b"etc/c", b"c"), member(b".wh.gone"), directory(b"opaque", mtime=6),
        member(b"opaque/.wh..wh..opq"), member(b"opaque/new", b"n"), member(b".wh.again"),
        directory(b"again", mtime=7), member(b"again/new", b"n"), directory(b"tree"),
        member(b"tree/.wh.sub"), directory(b"becomes-dir"), member(b"becomes-dir/y", b"y"),
        member(b"becomes-file", b"f"), member(b".wh.never-was"), member(b"link", b"no link any more"), END,
    )
)  # fmt: skip
TOP = b"".join(
    (
        directory(b"./"), directory(b"etc"), member(b"etc/a", b"back again"), member(b"opaque/.wh.new"),
        directory(b"opaque"), member(b"opaque/newer", b"n"), member(b".wh.again"), END,
    )
)  # fmt: skip


@pytest.mark.parametrize("layers", [2, 3])
def test_an_overlay_of_layers_is_the_layers_applied_by_hand(layers: int, tmp_path: Path) -> None:
    tars = [LOWER, UPPER, TOP][:layers]
    expected = comparable(applied(tars, tmp_path / "by-hand"))
    with stacked(tars, tmp_path) as target:
        found = comparable(seen.look(target))
    assert {n: replace(s, links=0) for n, s in found.items()} == {
        n: replace(s, links=0) for n, s in expected.items()
    }
    assert b"gone" not in found


def generated(chance: random.Random) -> bytes:
    """A layer over a few names, so that layers meet."""
    out = [directory(b"./")]
    made = {b""}
    entries: set[bytes] = set()
    for _ in range(chance.randint(1, 25)):
        parent = chance.choice(sorted(made))
        name = chance.choice([b"a", b"b", b"c", b"d"])
        path = parent + b"/" + name if parent else name
        if path in entries:
            continue
        entries.add(path)
        what = chance.randrange(6)
        if what <= 1:
            out.append(directory(path, mtime=chance.randrange(1000), mode=chance.choice([0o755, 0o700])))
            made.add(path)
            if chance.random() < 0.2:
                out.append(member(path + b"/.wh..wh..opq"))
        elif what == 2:
            out.append(member((parent + b"/" if parent else b"") + b".wh." + name))
        elif what == 3:
            out.append(member(path, flag=b"2", link=b"x"))
        else:
            out.append(member(path, b"%d" % chance.randrange(10**6), mtime=chance.randrange(1000)))
    return b"".join((*out, END))


@pytest.mark.parametrize("seed", range(int(os.environ.get("CRISP_LAYER_STACKS", "15"))))
def test_generated_stacks_are_the_layers_applied_by_hand(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    tars = [generated(chance) for _ in range(chance.randint(2, 4))]
    expected = comparable(applied(tars, tmp_path / "by-hand"))
    with stacked(tars, tmp_path) as target:
        found = comparable(seen.look(target))
    assert found == expected
