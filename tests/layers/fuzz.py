"""Mutates the seeds: a hostile tar is refused as bad input, or either form shows exactly what the tree says.

`python -m tests.layers.fuzz --seconds 600 --seed 1` in a mount namespace of its own, `--form directory` for
the other form; tests call `run`. The corpus keeps the smallest mutant of each outcome (`--keep`).
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import random
import re
import stat
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from oci.errors import BadInput
from oci.layers.erofs import write_index
from oci.layers.tar import TarReader
from oci.layers.tree import Node, Tree
from shim.images.unpack import Writer
from shim.kernel import mount
from tests.layers import seen
from tests.layers.mutants import mutate
from tests.layers.seeds import SEEDS

CORPUS = Path(__file__).with_name("corpus")
_KEPT = 16 << 10  # bytes of a mutant that may become one of the corpus

Attempt = Callable[[bytes, Path], str]


@dataclass
class Score:
    """What came of a run. `others` are lines of the kernel that came meanwhile, and not from a mutant."""

    tried: int = 0
    refused: int = 0
    mounted: int = 0
    others: list[str] = field(default_factory=list)


def refusal(error: BadInput) -> str:
    """Which refusal it is: its words, without names and numbers."""
    words = re.sub(r"'[^']*'|\"[^\"]*\"|\d+", "", str(error))
    return "refused-" + re.sub(r"[^a-z]+", "-", words.lower()).strip("-")[:80].rstrip("-")


def read(tar: bytes) -> tuple[Node, bytes]:
    """The tree of an archive and its index. Raises BadInput, whose text is fit to be shown."""
    reader, tree = TarReader(), Tree()
    try:
        for entry in reader.receive(tar):
            tree.add(entry)
        reader.finish()
        root = tree.finish()
        return root, write_index(root, reader.received)[0]
    except BadInput as error:
        text = str(error)
        assert text.isprintable(), text
        assert len(text) < 600, text
        raise


def attempt(tar: bytes, folder: Path) -> str:
    """What became of the archive: which refusal, or "taken" and what is in it; then its mount was compared.

    Any other outcome is an exception.
    """
    try:
        root, index = read(tar)
    except BadInput as error:
        return refusal(error)
    path = folder / "fuzz.tar"
    path.write_bytes(tar)
    with seen.mounted(path, index) as target:
        shown = seen.look(target)
    expected = seen.meant(root, tar)
    compare(shown, expected)
    return taken(expected)


def attempt_unpacking(tar: bytes, folder: Path) -> str:
    """The same of the directory form, in memory, and with nothing around the directory changed.

    Without the walls that the process has: what keeps to the directory here does so by itself.
    """
    try:
        root, _ = read(tar)
    except BadInput as error:
        return refusal(error)
    path, around = folder / "fuzz.tar", folder / "around"
    path.write_bytes(tar)
    around.mkdir()
    mount.mount("none", around, "tmpfs", data="mode=755")
    try:
        for name in ("tree", "etc"):
            (around / name).mkdir()
        (around / "etc/passwd").write_bytes(b"not yours")
        before = seen.look(around / "etc")
        try:
            _unpack(path, root, around / "tree")
        except OSError as error:
            return f"refused-{errno.errorcode[error.errno or 0].lower()}"
        finally:
            assert {path.name for path in around.iterdir()} == {"etc", "tree"}
            assert seen.look(around / "etc") == before
        compare(seen.look(around / "tree"), expected := seen.meant(root, tar))
    finally:
        mount.unmount(around)
        around.rmdir()
    return taken(expected)


def _unpack(tar: Path, root: Node, target: Path) -> None:
    mask = os.umask(0)
    source, directory = os.open(tar, os.O_RDONLY), os.open(target, os.O_RDONLY)
    try:
        with contextlib.chdir(Path.cwd()):  # a writer stays where it was last: it has a process of its own
            Writer(source).write(root, directory)
    finally:
        os.close(source)
        os.close(directory)
        os.umask(mask)


def compare(shown: seen.Tree, expected: seen.Tree) -> None:
    """Raises AssertionError, which names the first difference."""
    if shown != expected:
        names = [name for name in sorted({*shown, *expected}) if shown.get(name) != expected.get(name)]
        raise AssertionError(f"{names[0]!r}: {shown.get(names[0])} is not {expected.get(names[0])}")


def taken(tree: seen.Tree) -> str:
    """What a tree has besides plain files, as a word: the outcome of a mutant that was mounted."""
    found = set()
    for path, node in tree.items():
        kind = stat.S_IFMT(node.mode)
        if kind == stat.S_IFCHR:
            found.add("whiteout" if node.device == (0, 0) else "device")
        elif kind not in (stat.S_IFREG, stat.S_IFDIR):
            found.add({stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo"}.get(kind, "device"))
        elif kind == stat.S_IFREG and node.links > 1:
            found.add("hard-link")
        if node.size > 1 << 32:
            found.add("huge")
        if node.mtime < 0 or node.mtime >= 1 << 62:
            found.add("odd-time")
        if len(path) > 255:
            found.add("long-path")
        found |= {name.partition(b".")[0].decode() for name, _ in node.xattrs}
    return "-".join(["taken", *sorted(found)])


FORMS = {"erofs": attempt, "directory": attempt_unpacking}


def run(seconds: float, seed: int, folder: Path, keep: Path | None = None, each: Attempt = attempt) -> Score:
    """Mutants of the seeds and of the corpus for so long, each given to `each`.

    A line of the kernel fails the mutant that brings it about again; what fails is left in `folder`.
    """
    chance = random.Random(seed)
    score, log = Score(), seen.KernelLog()
    seeds = [make() for make in SEEDS.values()] + [p.read_bytes() for p in sorted(CORPUS.glob("*.tar"))]
    known = {} if keep is None else {path.stem: path.stat().st_size for path in keep.glob("*.tar")}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        tar = bytes(mutate(chance, bytearray(chance.choice(seeds)), seeds))
        score.tried += 1
        try:
            outcome = each(tar, folder)
            if outcome.startswith("taken"):
                score.others += _not_of(lambda tar=tar: each(tar, folder), log)
        except BaseException:
            (folder / f"failed-{seed}-{score.tried}.bin").write_bytes(tar)
            raise
        score.mounted += outcome.startswith("taken")
        score.refused += outcome.startswith("refused")
        if keep is not None and len(tar) < known.get(outcome, _KEPT):
            known[outcome] = len(tar)
            (keep / f"{outcome}.tar").write_bytes(tar)
    log.close()
    return score


def _not_of(again: Callable[[], object], log: seen.KernelLog) -> list[str]:
    """Lines that the kernel has written, if they are not due to `again`: others share the kernel.

    The kernel's lines do not say which mount they are about. So what seems to cause one is done again, and
    is at fault when each time a line comes. Raises AssertionError.
    """
    lines = log.complaints()
    if not lines:
        return []
    for _ in range(5):
        again()
        if not (more := log.complaints()):
            return lines
        lines += more
    raise AssertionError(f"the kernel says {lines}")


def main() -> None:
    """Run from the command line, and say what the kernel said."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--form", choices=FORMS, default="erofs")
    parser.add_argument("--keep", type=Path, help="write there the smallest mutant of each outcome")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="crisp-fuzz-"))
    each = FORMS[arguments.form]
    score = run(arguments.seconds, arguments.seed, folder, arguments.keep, each)
    sys.stdout.write(f"{score}\n")
    folder.rmdir() if not any(folder.iterdir()) else None


if __name__ == "__main__":
    main()
