"""Changes archives as an attacker or a bad disk would. Knows how a tar is spelled, no code of the product."""

from __future__ import annotations

import random
from collections.abc import Sequence

from tests.layers.archives import BLOCK, checked, number, pax
from tests.layers.seeds import ACL, CAPABILITY

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
_KEYS = (
    b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", b"hdrcharset", b"GNU.sparse.major",
    b"GNU.sparse.minor", b"GNU.sparse.realsize", b"GNU.sparse.size", b"GNU.sparse.map", b"GNU.sparse.name",
    b"GNU.sparse.numblocks", b"GNU.sparse.offset", b"GNU.sparse.numbytes", b"SCHILY.xattr.user.a",
    b"SCHILY.xattr.trusted.overlay.redirect", b"SCHILY.xattr.trusted.overlay.opaque",
    b"SCHILY.xattr.security.capability", b"SCHILY.xattr.system.posix_acl_access",
    b"SCHILY.xattr.system.posix_acl_default", b"SCHILY.xattr.security.selinux", b"SCHILY.xattr.",
    b"LIBARCHIVE.xattr.user.b", b"LIBARCHIVE.xattr.%00",
)  # fmt: skip
_VALUES = (
    b"", b"0", b"1", b"-1", b"512", b"1.5", b"-0.5", b"1.9999999999", b"9223372036854775807",
    b"99999999999999999999", b"4294967295", b"0,512", b"0,512,512,1", b"1024,512,0,512", b"a" * 300,
    b"x/" * 200, b"\0", b"\xff\xfe", ACL, ACL[:-1], CAPABILITY, CAPABILITY[:-4], b"YQ", b"y", b"v" * 66000,
)  # fmt: skip


def mutate(chance: random.Random, tar: bytearray, others: Sequence[bytes]) -> bytearray:
    """One to four changes; a header that was changed mostly gets its checksum put right again.

    Pieces of `others` are put in among them.
    """
    for _ in range(chance.randint(1, 4)):
        blocks = max(1, len(tar) // BLOCK)
        at = chance.randrange(blocks) * BLOCK
        what = chance.randrange(10)
        if what == 0:
            tar[at + chance.randrange(BLOCK) : at + BLOCK] = b""
            tar += bytes(-len(tar) % BLOCK)
        elif what == 1:
            del tar[at : at + BLOCK * chance.randint(1, 3)]
        elif what == 2:
            tar[at:at] = tar[at : at + BLOCK * chance.randint(1, 4)]
        elif what == 3:
            other = chance.choice(others)
            start = chance.randrange(len(other) // BLOCK + 1) * BLOCK
            tar[at:at] = other[start : start + BLOCK * chance.randint(1, 8)]
        elif what == 4:
            del tar[chance.randrange(len(tar) + 1) :]
        elif what == 5:
            pairs = [(chance.choice(_KEYS), chance.choice(_VALUES)) for _ in range(chance.randint(1, 3))]
            tar[at:at] = pax(pairs, chance.choice((b"x", b"x", b"x", b"g")))
        elif at + BLOCK <= len(tar):
            _change(chance, tar, at, what)
        if not tar:
            tar += bytes(BLOCK)
    return tar


def _change(chance: random.Random, tar: bytearray, at: int, what: int) -> None:
    """Change a field, a text, the type or some bytes of the block at `at`, as if it were a header."""
    block = bytearray(tar[at : at + BLOCK])
    if what == 6:
        start, width = chance.choice(_FIELDS)
        value = chance.choice(_NUMBERS) + chance.randint(-1, 1)
        text = number(value, width) if chance.random() < 0.8 else chance.randbytes(width)
        block[start : start + width] = text
    elif what == 7:
        start, width = chance.choice(((0, 100), (157, 100), (345, 155)))
        block[start : start + width] = chance.choice(_TEXTS).ljust(width, b"\0")[:width]
    elif what == 8:
        block[156] = chance.choice(b"0123456789\0SLKxgDVMX")
    else:
        for _ in range(chance.randint(1, 8)):
            block[chance.randrange(BLOCK)] = chance.choice(b"\0 0179=\n,./-x\x80\xff")
    tar[at : at + BLOCK] = checked(bytes(block)) if chance.random() < 0.9 else block
