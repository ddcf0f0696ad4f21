"""From a tar's entries to the tree that a layer is: order, replacement, links and whiteouts resolved.

Pure and independent of the layers below. The rules are those by which images are made and unpacked
elsewhere (OCI image specification, "Image Layer Filesystem Changeset"; containerd's archive apply), each
held inside the layer's own root:

- the last entry of a path wins; only a directory over a directory keeps what is in it;
- missing parents are directories 0755 of root, and `Node.implied` says so;
- a parent that is a symlink of this layer is followed, inside the root; any other non-directory is an error;
- a hard link's target must be in this layer, before or after the link;
- `.wh.NAME` hides NAME of the layers below, wherever it stands among the entries: a directory NAME of this
  same layer becomes opaque, any other NAME hides what is below by itself;
- `.wh..wh.opq` makes its directory opaque; other names in `.wh..wh.` are aufs's own and are left out.
"""

from __future__ import annotations

from collections.abc import Iterator

from oci.errors import BadInput
from oci.layers.entry import NAME_MAX, Entry, Kind, Limits, shown
from oci.layers.xattr import OPAQUE, ORIGIN, settled

WHITEOUT = b".wh."
AUFS = b".wh..wh."
OPAQUE_NAME = b".wh..wh..opq"
_HOPS = 40  # symlinks in one path, as the kernel allows


class Node:
    """An inode. Its names are in its parents' `children`; hard links are one node under several names."""

    __slots__ = ("children", "entry", "hides", "implied", "links", "opaque", "whiteouts")

    def __init__(self, entry: Entry, *, implied: bool = False) -> None:
        self.entry = entry
        self.implied = implied  # a directory that no entry describes
        self.opaque = False
        self.hides = False  # set by Tree.finish: a directory that has whiteouts in it
        self.links = 0  # set by Tree.finish
        self.children: dict[bytes, Node] | None = {} if entry.kind is Kind.DIRECTORY else None
        self.whiteouts: set[bytes] | None = None

    @property
    def is_whiteout(self) -> bool:
        """A character device 0/0, as overlayfs has it; a tar may bring one of its own."""
        entry = self.entry
        return entry.kind is Kind.CHARACTER and not entry.major and not entry.minor

    def marks(self) -> tuple[tuple[bytes, bytes], ...]:
        """The attributes by which overlayfs knows what this directory hides."""
        if self.opaque:
            return (OPAQUE, ORIGIN) if self.hides else (OPAQUE,)
        return (ORIGIN,) if self.hides else ()

    def entries(self) -> dict[bytes, Node]:
        """The children of a directory; asking anything else is a mistake of the caller."""
        assert self.children is not None
        return self.children


class Tree:
    """Takes entries in the archive's order with `add`; `finish` resolves what had to wait."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._root = Node(Entry(b"", Kind.DIRECTORY), implied=True)
        # Paths already walked. Entries come directory by directory, so nearly every look-up ends here.
        self._known: dict[bytes, Node] = {b"": self._root}
        self._nodes = 1
        self._implied = 0
        self._steps = self._limits.steps
        self._waiting: list[tuple[Node, bytes, Node]] = []

    def add(self, entry: Entry) -> None:
        """Apply one entry. BadInput names it."""
        if entry.xattrs:
            entry = settled(entry)
        path = entry.path
        if not path:
            self._root.entry, self._root.implied = entry, False
            return
        above, _, name = path.rpartition(b"/")
        if name.startswith(WHITEOUT) or WHITEOUT in above:
            if any(part.startswith(AUFS) for part in path.split(b"/")[:-1]):
                return
            if name.startswith(WHITEOUT):
                self._whiteout(path, above, name)
                return
        parent = self._known.get(above) or self._directory(above, path)
        if len(name) > NAME_MAX:
            raise BadInput(f"layer: entry {shown(path)!r}: a name is longer than {NAME_MAX} bytes")
        siblings = parent.entries()
        old = siblings.get(name)
        kind = entry.kind
        if kind is Kind.HARDLINK:
            self._link(entry, parent, name, old)
            return
        if kind is Kind.SYMLINK and not 0 < len(entry.target) < self._limits.path:
            raise BadInput(f"layer: entry {shown(path)!r}: symlink target of {len(entry.target)} bytes")
        if old is not None:
            if old.children is not None and kind is Kind.DIRECTORY:
                old.entry, old.implied = entry, False
                return
            self._forget(old)
        node = siblings[name] = Node(entry)
        self._count(path)
        if kind is Kind.DIRECTORY:
            self._known[path] = node

    def finish(self) -> Node:
        """Resolve links to later entries, place the whiteouts, count links. The root; its own parent."""
        self._resolve_waiting()
        self._root.links = 2
        # Beneath an opaque directory nothing of the layers below shows, so a whiteout there would hide
        # nothing and be listed by overlayfs as an entry that cannot be looked up.
        stack = [(self._root, self._root.opaque)]
        while stack:
            directory, covered = stack.pop()
            children = directory.entries()
            for name in directory.whiteouts or ():
                child = children.get(name)
                if child is None:
                    if not covered:
                        children[name] = Node(Entry(b"", Kind.CHARACTER, mode=0))
                elif child.children is not None:
                    child.opaque = True
            for child in children.values():
                if child.children is not None:
                    child.links = 2
                    directory.links += 1
                    stack.append((child, covered or child.opaque))
                else:
                    child.links += 1
                    directory.hides = directory.hides or child.is_whiteout
        return self._root

    def _count(self, path: bytes) -> None:
        self._nodes += 1
        if self._nodes > self._limits.entries:
            raise BadInput(f"layer: entry {shown(path)!r}: more than {self._limits.entries} inodes")

    def _step(self, path: bytes) -> None:
        self._steps -= 1
        if self._steps < 0:
            raise BadInput(
                f"layer: entry {shown(path)!r}: paths and links of the layer take too many look-ups"
            )

    def _forget(self, old: Node) -> None:
        """`old` goes from its place; walks that led through it are no longer known."""
        if old.children is not None or old.entry.kind is Kind.SYMLINK:
            self._known = {b"": self._root}

    def _whiteout(self, path: bytes, above: bytes, name: bytes) -> None:
        if name == OPAQUE_NAME:
            self._directory(above, path).opaque = True
            return
        if name.startswith(AUFS):
            return
        hidden = name[len(WHITEOUT) :]
        if hidden in (b"", b".", b"..") or len(hidden) > NAME_MAX:
            raise BadInput(f"layer: entry {shown(path)!r}: a whiteout of no name")
        parent = self._directory(above, path)
        if parent.whiteouts is None:
            parent.whiteouts = set()
        if hidden not in parent.whiteouts:
            parent.whiteouts.add(hidden)
            self._count(path)

    def _directory(self, path: bytes, wanted_by: bytes) -> Node:
        """The directory `path`, made with its parents where it is missing."""
        known = self._known.get(path)
        if known is None:
            known = self._walk(path, wanted_by, make=True)
            assert known is not None
            self._known[path] = known
        return known

    def _walk(self, path: bytes, wanted_by: bytes, *, make: bool) -> Node | None:
        """Follow `path`, and the symlinks in it, as if the layer's root were `/`."""
        stack = [self._root]
        todo = path.split(b"/")[::-1]
        hops = 0
        while todo:
            part = todo.pop()
            self._step(wanted_by)
            if part in (b"", b"."):
                continue
            if part == b"..":
                if len(stack) > 1:
                    stack.pop()
                continue
            child = stack[-1].entries().get(part)
            if child is None:
                if not make:
                    return None
                if len(part) > NAME_MAX or part.startswith(WHITEOUT):
                    raise BadInput(
                        f"layer: entry {shown(wanted_by)!r}: {shown(part)!r} cannot name a directory"
                    )
                child = stack[-1].entries()[part] = Node(Entry(b"", Kind.DIRECTORY), implied=True)
                self._count(wanted_by)
                self._implied += 1
                if self._implied > self._limits.implied:
                    raise BadInput(
                        f"layer: entry {shown(wanted_by)!r}: more than {self._limits.implied} directories "
                        f"have no entry of their own"
                    )
            if child.children is not None:
                stack.append(child)
            elif child.entry.kind is Kind.SYMLINK:
                hops += 1
                if hops > _HOPS:
                    raise BadInput(
                        f"layer: entry {shown(wanted_by)!r}: symlinks of its parents go in circles"
                    )
                target = child.entry.target
                if target.startswith(b"/"):
                    del stack[1:]
                todo += target.split(b"/")[::-1]
            elif make:
                raise BadInput(f"layer: entry {shown(wanted_by)!r}: {shown(part)!r} above it is no directory")
            else:
                return None
        return stack[-1]

    def _find(self, path: bytes, wanted_by: bytes) -> Node | None:
        """What stands at `path`; a symlink there is not followed, as link(2) does not."""
        self._step(wanted_by)
        if not path:
            return self._root
        above, _, name = path.rpartition(b"/")
        parent = self._known.get(above) or self._walk(above, wanted_by, make=False)
        return None if parent is None else parent.entries().get(name)

    def _link(self, entry: Entry, parent: Node, name: bytes, old: Node | None) -> None:
        target = self._find(entry.target, entry.path)
        if target is not None and target is old:
            return
        if target is not None and target.children is not None:
            raise BadInput(
                f"layer: entry {shown(entry.path)!r}: hard link to directory {shown(entry.target)!r}"
            )
        if old is not None:
            self._forget(old)
        if target is None or target.entry.kind is Kind.HARDLINK:
            target = Node(entry)
            self._count(entry.path)
            self._waiting.append((parent, name, target))
        parent.entries()[name] = target

    def _resolve_waiting(self) -> None:
        """Links whose target came later, perhaps as a link itself: rounds, until none moves any more."""
        waiting = [w for w in self._waiting if w[0].entries().get(w[1]) is w[2]]
        while waiting:
            left = []
            for parent, name, placeholder in waiting:
                path, wanted = placeholder.entry.path, placeholder.entry.target
                target = self._find(wanted, path)
                if target is not None and target.children is not None:
                    raise BadInput(f"layer: entry {shown(path)!r}: hard link to directory {shown(wanted)!r}")
                if target is None or target.entry.kind is Kind.HARDLINK:
                    left.append((parent, name, placeholder))
                else:
                    parent.entries()[name] = target
            if len(left) == len(waiting):
                entry = left[0][2].entry
                raise BadInput(
                    f"layer: entry {shown(entry.path)!r}: hard link to {shown(entry.target)!r}, "
                    f"which is not in this layer"
                )
            waiting = left


def implied_directories(root: Node) -> Iterator[bytes]:
    """Paths of directories that no entry of the layer describes, parents first; the root as `b""`.

    Stacked on a lower layer that has them, these would replace its modes and owners: whoever assembles an
    image must take those from below.
    """
    stack = [(b"", root)]
    while stack:
        path, node = stack.pop()
        if node.implied:
            yield path
        children = node.entries()
        for name in sorted(children, reverse=True):
            child = children[name]
            if child.children is not None:
                stack.append((path + b"/" + name if path else name, child))
