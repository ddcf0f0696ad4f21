"""Mutates the seeds: a hostile tar is refused as bad input, or its mount shows exactly what the tree says.

`python -m tests.layers.fuzz --seconds 60 --seed 1` in a mount namespace of its own; tests call `run`.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from oci.errors import BadInput
from oci.layers.erofs import write_index
from oci.layers.tar import TarReader
from oci.layers.tree import Tree
from tests.layers import seen
from tests.layers.archives import BLOCK, checked, number
from tests.layers.seeds import SEEDS

CORPUS = Path(__file__).with_name("corpus")
_NUMBERS = (0, 1, 2, 511, 512, 513, 1023, 4096, 65535, 65536, (1 << 31) - 1, 1 << 33, 1 << 62, (1 << 63) - 1)
_TEXTS = (b"", b".", b"..", b"/", b"a/../..", b"../x", b"etc", b"etc/passwd", b".wh.", b".wh.etc",
          b"bin/sh/x", b".wh..wh..opq", b"./", b"\xff", b"x" * 100, b"lib/x", b"early", b"late",
          b"/..", b"a\0b")  # fmt: skip
_FIELDS = (
    (100, 8),
    (108, 8),
    (116, 8),
    (124, 12),
    (136, 12),
    (329, 8),
    (337, 8),
    (483, 12),
    (386, 12),
    (398, 12),
)


@dataclass
class Score:
    """What came of a run."""

    tried: int = 0
    refused: int = 0
    mounted: int = 0


def mutate(chance: random.Random, tar: bytearray) -> bytearray:
    """One to four changes; a header that was changed mostly gets its checksum put right again."""
    for _ in range(chance.randint(1, 4)):
        blocks = max(1, len(tar) // BLOCK)
        at = chance.randrange(blocks) * BLOCK
        what = chance.randrange(9)
        if what == 0:
            tar[at + chance.randrange(BLOCK) : at + BLOCK] = b""
            tar += bytes(-len(tar) % BLOCK)
        elif what == 1:
            del tar[at : at + BLOCK * chance.randint(1, 3)]
        elif what == 2:
            tar[at:at] = tar[at : at + BLOCK * chance.randint(1, 4)]
        elif what == 3:
            other = chance.choice(list(SEEDS.values()))()
            start = chance.randrange(len(other) // BLOCK) * BLOCK
            tar[at:at] = other[start : start + BLOCK * chance.randint(1, 8)]
        elif what == 4:
            del tar[chance.randrange(len(tar) + 1) :]
        elif at + BLOCK <= len(tar):
            block = bytearray(tar[at : at + BLOCK])
            if what == 5:
                start, width = chance.choice(_FIELDS)
                value = chance.choice(_NUMBERS) + chance.randint(-1, 1)
                text = number(value, width) if chance.random() < 0.8 else chance.randbytes(width)
                block[start : start + width] = text
            elif what == 6:
                start, width = chance.choice(((0, 100), (157, 100), (345, 155)))
                block[start : start + width] = chance.choice(_TEXTS).ljust(width, b"\0")[:width]
            elif what == 7:
                block[156] = chance.choice(b"0123456789\0SLKxgDVMX")
            else:
                for _ in range(chance.randint(1, 8)):
                    block[chance.randrange(BLOCK)] = chance.choice(b"\0 0179=\n,./-x\x80\xff")
            tar[at : at + BLOCK] = checked(bytes(block)) if chance.random() < 0.9 else block
        if not tar:
            tar += bytes(BLOCK)
    return tar


def attempt(tar: bytes, folder: Path) -> bool:
    """Whether the archive was taken; if so its mount has been compared. Any other outcome is an exception."""
    reader, tree = TarReader(), Tree()
    try:
        for entry in reader.receive(tar):
            tree.add(entry)
        reader.finish()
        root = tree.finish()
        index = write_index(root, reader.received)[0]
    except BadInput as error:
        text = str(error)
        assert text.isprintable(), text
        assert len(text) < 600, text
        return False
    path = folder / "fuzz.tar"
    path.write_bytes(tar)
    with seen.mounted(path, index) as target:
        shown = seen.look(target)
    expected = seen.meant(root, tar)
    if shown != expected:
        names = [name for name in sorted({*shown, *expected}) if shown.get(name) != expected.get(name)]
        raise AssertionError(f"{names[0]!r}: {shown.get(names[0])} is not {expected.get(names[0])}")
    return True


def run(seconds: float, seed: int, folder: Path) -> Score:
    """Mutants of the seeds and of the corpus for so long; what fails is left in `folder`."""
    chance = random.Random(seed)
    score = Score()
    seeds = [make() for make in SEEDS.values()] + [p.read_bytes() for p in sorted(CORPUS.glob("*.tar"))]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        tar = bytes(mutate(chance, bytearray(chance.choice(seeds))))
        score.tried += 1
        try:
            taken = attempt(tar, folder)
        except BaseException:
            (folder / f"failed-{seed}-{score.tried}.bin").write_bytes(tar)
            raise
        score.mounted += taken
        score.refused += not taken
    return score


def main() -> None:
    """Run from the command line, and say what the kernel said."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    log = seen.KernelLog()
    folder = Path(tempfile.mkdtemp(prefix="crisp-fuzz-"))
    print(folder, run(arguments.seconds, arguments.seed, folder), log.complaints())


if __name__ == "__main__":
    main()
