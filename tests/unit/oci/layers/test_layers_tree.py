"""The tree of a layer: replacement, parents, links, whiteouts."""

from __future__ import annotations

import pytest

from oci.errors import BadInput
from oci.layers.entry import Entry, Kind, Limits
from oci.layers.tree import Node, Tree, implied_directories

MARKS = {
    Kind.FILE: "f", Kind.CHARACTER: "c", Kind.FIFO: "p", Kind.BLOCK_DEVICE: "b",
}  # fmt: skip


def file(path: str, size: int = 0) -> Entry:
    return Entry(path.encode(), Kind.FILE, 0o644, size=size)


def folder(path: str, mode: int = 0o755) -> Entry:
    return Entry(path.encode(), Kind.DIRECTORY, mode)


def link(path: str, target: str) -> Entry:
    return Entry(path.encode(), Kind.HARDLINK, target=target.encode())


def symlink(path: str, target: str) -> Entry:
    return Entry(path.encode(), Kind.SYMLINK, 0o777, target=target.encode())


def build(*entries: Entry, limits: Limits | None = None) -> Node:
    tree = Tree(limits)
    for entry in entries:
        tree.add(entry)
    return tree.finish()


def shape(root: Node) -> dict[str, str]:
    """Path to a letter for the kind, with the size of a file, the target of a link, `!` for opaque."""
    found = {}
    stack = [("", root)]
    while stack:
        path, node = stack.pop()
        if node.children is not None:
            if path:
                found[path] = "d!" if node.opaque else "d"
            stack += [(f"{path}/{name.decode()}".strip("/"), child) for name, child in node.children.items()]
        elif node.entry.kind is Kind.SYMLINK:
            found[path] = "-> " + node.entry.target.decode()
        else:
            found[path] = MARKS[node.entry.kind] + (str(node.entry.size) if node.entry.size else "")
    return found


def refusal(*entries: Entry, limits: Limits | None = None) -> str:
    with pytest.raises(BadInput) as caught:
        build(*entries, limits=limits)
    return str(caught.value)


def test_missing_parents_are_made_and_told() -> None:
    root = build(file("a/b/c"), folder("a"), file("x/y"))
    assert shape(root) == {"a": "d", "a/b": "d", "a/b/c": "f", "x": "d", "x/y": "f"}
    assert list(implied_directories(root)) == [b"", b"a/b", b"x"]
    implied = root.entries()[b"x"].entry
    assert (implied.mode, implied.uid, implied.gid, implied.seconds) == (0o755, 0, 0, 0)
    assert list(implied_directories(build(folder("")))) == []


def test_the_last_entry_of_a_path_wins() -> None:
    assert shape(build(file("a", 1), file("a", 2))) == {"a": "f2"}
    assert shape(build(folder("a"), file("a/x"), file("a", 3))) == {"a": "f3"}
    assert shape(build(file("a"), folder("a"), file("a/x"))) == {"a": "d", "a/x": "f"}
    assert shape(build(symlink("a", "b"), folder("a"), file("a/x"))) == {"a": "d", "a/x": "f"}


def test_a_directory_over_a_directory_keeps_what_is_in_it() -> None:
    root = build(folder("a"), file("a/x"), folder("a", 0o700))
    assert shape(root) == {"a": "d", "a/x": "f"}
    assert root.entries()[b"a"].entry.mode == 0o700


def test_entries_below_a_replaced_directory_go_into_what_is_there_now() -> None:
    assert shape(build(folder("a/b"), file("a", 1), folder("a"), file("a/b/c"))) == {
        "a": "d", "a/b": "d", "a/b/c": "f",
    }  # fmt: skip


@pytest.mark.parametrize("target", ["usr/lib", "/usr/lib", "../../usr/lib", "./usr//lib/", "/../usr/lib"])
def test_a_symlinked_parent_is_followed_inside_the_root(target: str) -> None:
    root = build(symlink("lib", target), file("lib/x"), file("lib/d/y"))
    assert shape(root) == {
        "lib": f"-> {target}", "usr": "d", "usr/lib": "d", "usr/lib/x": "f", "usr/lib/d": "d",
        "usr/lib/d/y": "f",
    }  # fmt: skip


def test_a_symlink_is_resolved_from_the_directory_it_is_in() -> None:
    assert shape(build(symlink("a/l", "../b"), file("a/l/x"))) == {
        "a": "d", "a/l": "-> ../b", "b": "d", "b/x": "f",
    }  # fmt: skip


def test_a_changed_symlink_leads_elsewhere() -> None:
    root = build(symlink("l", "one"), file("l/x"), symlink("l", "two"), file("l/y"))
    assert shape(root) == {"l": "-> two", "one": "d", "one/x": "f", "two": "d", "two/y": "f"}


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ((symlink("a", "b"), symlink("b", "a"), file("a/x")), "symlinks of its parents go in circles"),
        ((symlink("a", "a/a"), file("a/x")), "symlinks of its parents go in circles"),
        ((file("a"), file("a/x")), "'a' above it is no directory"),
        ((symlink("l", "f"), file("f"), file("l/x")), "'f' above it is no directory"),
        ((link("a", "b"),), "hard link to 'b', which is not in this layer"),
        ((link("a", "a"),), "hard link to 'a', which is not in this layer"),
        ((link("a", "b"), link("b", "a")), "which is not in this layer"),
        ((folder("d"), link("a", "d")), "hard link to directory 'd'"),
        ((link("a", "d"), folder("d")), "hard link to directory 'd'"),
        ((link("a", ""),), "hard link to directory ''"),
        ((file("n" * 256),), "longer than 255 bytes"),
        ((file("n" * 256 + "/x"),), "cannot name a directory"),
        ((symlink("l", ""),), "symlink target of 0 bytes"),
        ((symlink("l", "t" * 4096),), "symlink target of 4096 bytes"),
        ((file(".wh."),), "a whiteout of no name"),
        ((file("a/.wh..."),), "a whiteout of no name"),
        ((file(".wh.d/x"),), "'.wh.d' cannot name a directory"),
    ],
)
def test_what_cannot_be_placed_is_refused_by_name(entries: tuple[Entry, ...], words: str) -> None:
    text = refusal(*entries)
    assert text.startswith("layer: entry '")
    assert words in text


def test_hard_links_are_one_node_before_or_after_their_target() -> None:
    root = build(link("early", "late"), file("late", 5), link("third", "early"), link("sub/fourth", "late"))
    children = root.entries()
    late = children[b"late"]
    assert children[b"early"] is children[b"third"] is late
    assert children[b"sub"].entries()[b"fourth"] is late
    assert late.links == 4


def test_a_hard_link_keeps_the_inode_that_a_later_entry_replaces() -> None:
    root = build(file("a", 1), link("b", "a"), file("a", 2))
    assert shape(root) == {"a": "f2", "b": "f1"}
    assert root.entries()[b"b"].links == 1


def test_a_hard_link_to_itself_changes_nothing() -> None:
    assert shape(build(file("a", 1), link("a", "a"))) == {"a": "f1"}


def test_a_hard_link_to_a_symlink_links_the_symlink() -> None:
    root = build(symlink("s", "x"), link("l", "s"))
    assert root.entries()[b"l"] is root.entries()[b"s"]


def test_a_waiting_link_that_is_replaced_is_forgotten() -> None:
    assert shape(build(link("a", "nowhere"), file("a", 1))) == {"a": "f1"}


def test_link_counts_of_directories_count_their_subdirectories() -> None:
    root = build(folder("a/b"), folder("a/c"), file("a/f"))
    assert (root.links, root.entries()[b"a"].links, root.entries()[b"a"].entries()[b"b"].links) == (3, 4, 2)


def test_whiteouts_become_character_devices_0_0() -> None:
    root = build(file("a/.wh.b"), file(".wh.c"))
    assert shape(root) == {"a": "d", "a/b": "c", "c": "c"}
    entry = root.entries()[b"c"].entry
    assert (entry.major, entry.minor, entry.mode) == (0, 0, 0)


@pytest.mark.parametrize("first", [True, False])
def test_a_whiteout_beside_an_entry_of_its_name_hides_only_what_is_below(first: bool) -> None:
    whiteout, entries = file(".wh.d"), (folder("d"), file("d/new"))
    order = (whiteout, *entries) if first else (*entries, whiteout)
    assert shape(build(*order)) == {"d": "d!", "d/new": "f"}
    order = (whiteout, file("d", 4)) if first else (file("d", 4), whiteout)
    assert shape(build(*order)) == {"d": "f4"}


def test_an_opaque_directory_needs_no_whiteouts_below_it() -> None:
    root = build(file("o/.wh..wh..opq"), file("o/.wh.x"), file("o/sub/.wh.y"), file("p/.wh.z"))
    assert shape(root) == {"o": "d!", "o/sub": "d", "p": "d", "p/z": "c"}


def test_the_root_can_be_opaque() -> None:
    root = build(file(".wh..wh..opq"), file(".wh.gone"))
    assert (root.opaque, shape(root)) == (True, {})


def test_aufs_leftovers_are_left_out() -> None:
    entries = (
        file(".wh..wh.aufs"),
        folder(".wh..wh.plnk"),
        file(".wh..wh.plnk/1.2"),
        file("a/.wh..wh.orph/x"),
    )
    assert shape(build(*entries)) == {}


def test_limits_hold() -> None:
    assert "more than 3 inodes" in refusal(file("a/b/c/d"), limits=Limits(entries=3))
    assert "more than 2 directories" in refusal(file("a/b/c/d"), limits=Limits(implied=2))
    many = [symlink("s", "/".join(["."] * 500)), *[file(f"s/{i}/x") for i in range(20)]]
    assert "too many look-ups" in refusal(*many, limits=Limits(steps=5000))
