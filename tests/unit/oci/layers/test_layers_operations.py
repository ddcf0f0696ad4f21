"""The directory form: operations in an order that a worker can follow blindly."""

from __future__ import annotations

import pytest

from oci.layers.entry import Kind, Segment
from oci.layers.operations import (
    Finish,
    MakeDirectory,
    MakeLink,
    MakeNode,
    MakeSymlink,
    Operation,
    WriteFile,
    operations,
)
from oci.layers.tar import TarReader
from oci.layers.tree import Tree
from tests.layers.archives import END, directory, member
from tests.layers.seeds import SEEDS


def of(tar: bytes) -> list[Operation]:
    tree = Tree()
    for entry in TarReader().receive(tar):
        tree.add(entry)
    return list(operations(tree.finish()))


def finish(path: bytes, kind: Kind, mode: int, **other: object) -> Finish:
    values = {"uid": 0, "gid": 0, "seconds": 0, "nanoseconds": 0, "xattrs": ()} | other
    return Finish(path=path, kind=kind, mode=mode, **values)  # type: ignore[arg-type]


def test_a_small_layer_is_made_step_by_step() -> None:
    tar = b"".join(
        (
            directory(b"d", mode=0o1777, mtime=7),
            member(b"d/f", b"abc", mode=0o4755, uid=5, xattrs=[(b"user.a", b"1"), (b"system.x", b"no")]),
            member(b"l", flag=b"1", link=b"d/f"),
            member(b"s", flag=b"2", link=b"../.."),
            member(b"d/.wh.gone"),
            member(b"d/.wh..wh..opq"),
            member(b"p", flag=b"6"),
            member(b".wh.w"),
            END,
        )
    )
    origin = (b"trusted.overlay.origin", b"")
    assert of(tar) == [
        MakeDirectory(path=b"d"),
        WriteFile(path=b"l", size=3, runs=(Segment(0, 3, 2048),)),
        finish(b"l", Kind.FILE, 0o4755, uid=5, xattrs=((b"user.a", b"1"),)),
        MakeNode(path=b"p", kind=Kind.FIFO, major=0, minor=0),
        finish(b"p", Kind.FIFO, 0o644),
        MakeSymlink(path=b"s", target=b"../.."),
        finish(b"s", Kind.SYMLINK, 0o777),
        MakeNode(path=b"w", kind=Kind.CHARACTER, major=0, minor=0),
        finish(b"w", Kind.CHARACTER, 0),
        MakeLink(path=b"d/f", target=b"l"),
        finish(b"d", Kind.DIRECTORY, 0o1777, seconds=7, xattrs=((b"trusted.overlay.opaque", b"y"),)),
        finish(b"", Kind.DIRECTORY, 0o755, xattrs=(origin,)),
    ]


@pytest.mark.parametrize("name", SEEDS)
def test_each_operation_finds_what_it_needs_and_nothing_in_its_way(name: str) -> None:
    directories, others, finished = {b""}, set[bytes](), set[bytes]()
    for operation in of(SEEDS[name]()):
        path = operation.path
        assert b".." not in path.split(b"/")
        if isinstance(operation, Finish):
            assert path in directories | others
            assert path not in finished
            finished.add(path)
            continue
        parent = path.rpartition(b"/")[0]
        assert parent in directories
        assert parent not in finished
        assert path not in directories | others
        if isinstance(operation, MakeLink):
            assert operation.target in others
            finished.add(path)
        (directories if isinstance(operation, MakeDirectory) else others).add(path)
    assert finished == directories | others


def test_contents_are_runs_of_the_tar_and_holes_between() -> None:
    runs = {o.path: (o.size, o.runs) for o in of(SEEDS["sparse"]()) if isinstance(o, WriteFile)}
    assert runs[b"hole"] == (1 << 22, ())
    assert runs[b"pax00"][0] == (1 << 20) + 3
    assert [(r.start, r.length) for r in runs[b"pax00"][1]] == [(0, 512), (4096, 1024), (1 << 20, 3)]
