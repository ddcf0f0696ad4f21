"""A streaming reader of tar headers: bytes in, in any pieces, entries out. ustar, V7, GNU and PAX.

Owns the archive's framing. File contents are stepped over, never looked at; what the entries become is
`tree.py`'s matter. Where the dialects leave a choice it takes the one of Go's archive/tar, which wrote or
read nearly every image there is: links, devices, directories and fifos have no contents whatever their size
field says, and a missing end-of-archive mark is no error.

Sources: POSIX.1-2017 pax "ustar Interchange Format" and "pax Header Block"; GNU tar manual, "Basic Tar
Format", "Storing Sparse Files", "Extensions".
"""

from __future__ import annotations

from collections.abc import Callable

from oci.errors import BadInput
from oci.layers import pax
from oci.layers.entry import BLOCK, Entry, Kind, Limits, Segment, clean_path, shown

_ZERO = bytes(BLOCK)
_INT64 = 1 << 63
_SIZE_MAX = 1 << 62  # of a sparse file; beyond, rounding up to a block would overflow in the kernel
_ID_MAX = (1 << 32) - 2  # (uid_t)-1 means "nobody in particular" to the kernel
_CACHE = 4096
_FOR_ALL = (b"uid", b"gid", b"mtime")
_PER_ENTRY = (b"path", b"linkpath", b"size", pax.SPARSE, pax.SCHILY, pax.LIBARCHIVE)

_KINDS = {
    ord("0"): Kind.FILE,
    0: Kind.FILE,
    ord("7"): Kind.FILE,  # contiguous
    ord("S"): Kind.FILE,  # GNU sparse
    ord("1"): Kind.HARDLINK,
    ord("2"): Kind.SYMLINK,
    ord("3"): Kind.CHARACTER,
    ord("4"): Kind.BLOCK_DEVICE,
    ord("5"): Kind.DIRECTORY,
    ord("6"): Kind.FIFO,
}


class TarReader:
    """Feed it the archive with `receive`, in pieces of any size; each returns the entries it completed.

    Every error is BadInput, names the entry or the byte, and is final. Memory is bounded by the limits,
    never by the sizes that the archive claims.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._received = 0
        self._offset = 0  # in the archive, of the first byte after the block at hand
        self._held = bytearray()
        self._want = BLOCK
        self._skip = 0
        self._body: Callable[[bytes], Entry | None] | None = None
        self._zeros = 0
        self._entries = 0
        self._globals: pax.Records = {}
        self._records: pax.Records = {}
        self._long: dict[int, bytes] = {}
        self._identities: dict[bytes, tuple[int, int, int]] = {}
        self._times: dict[bytes, int] = {}
        self._failure: BadInput | None = None

    @property
    def received(self) -> int:
        """Bytes fed so far: the archive's size, after the last."""
        return self._received

    @property
    def ended(self) -> bool:
        """Whether the end-of-archive mark, two zero blocks, was seen. What follows it is ignored."""
        return self._zeros == 2

    def receive(self, data: bytes | bytearray | memoryview) -> list[Entry]:
        """Take the next piece. Contents inside it cost nothing."""
        if self._failure is not None:
            raise self._failure
        try:
            return self._take(data)
        except BadInput as error:
            self._failure = error
            raise

    def finish(self) -> None:
        """Say that the archive is over. BadInput if it broke off inside an entry."""
        if self._failure is not None:
            raise self._failure
        if self._zeros == 2:
            return
        # Padding counts: the kernel reads the tar by whole blocks and fails where the last one is short.
        if self._skip or self._held or self._body is not None or self._records or self._long:
            what = f"{self._skip} bytes of contents or padding lack" if self._skip else "inside a header"
            self._failure = BadInput(f"layer tar: archive is truncated at byte {self._received}: {what}")
            raise self._failure

    def _take(self, data: bytes | bytearray | memoryview) -> list[Entry]:
        entries: list[Entry] = []
        at, end = 0, len(data)
        base = self._received
        self._received += end
        while self._zeros < 2:
            if self._skip:
                step = min(self._skip, end - at)
                self._skip -= step
                at += step
                if self._skip:
                    break
            if self._held:
                piece = data[at : at + self._want - len(self._held)]
                self._held += piece
                at += len(piece)
                if len(self._held) < self._want:
                    break
                block = bytes(self._held)
                self._held.clear()
            else:
                if end - at < self._want:
                    self._held += data[at:]
                    break
                block = bytes(data[at : at + self._want])
                at += self._want
            self._offset = base + at
            entry = self._header(block) if self._body is None else self._body(block)
            if entry is not None:
                self._entries += 1
                if self._entries > self._limits.entries:
                    raise BadInput(f"layer tar: more than {self._limits.entries} entries")
                entries.append(entry)
        return entries

    def _pass_over(self, size: int) -> None:
        """Let `size` bytes of contents and their padding go by."""
        self._skip = size + (-size % BLOCK)
        self._want = BLOCK
        self._body = None

    def _collect(self, size: int, body: Callable[[bytes], Entry | None]) -> None:
        """Hand the next `size` bytes to `body`."""
        self._want = size
        self._body = body

    @property
    def _where(self) -> str:
        return f"header at byte {self._offset - BLOCK}"

    def _header(self, block: bytes) -> Entry | None:
        if block == _ZERO:
            self._zeros += 1
            if self._records or self._long:
                raise BadInput(f"layer tar: {self._where}: the archive ends after an extended header")
            return None
        if self._zeros:
            raise BadInput(f"layer tar: {self._where}: one zero block, then more: the archive is damaged")
        total = sum(block) - sum(block[148:156]) + 256
        # Nearly every writer spells the checksum so; formatting one number is cheaper than parsing another.
        if block[148:155] != b"%06o\0" % total:
            try:
                stored = self._number(block[148:156], "checksum")
            except BadInput:
                stored = -1
            if stored not in (total, _signed_sum(block)):
                raise BadInput(f"layer tar: {self._where}: wrong checksum: the archive is damaged, or no tar")
        size = self._number(block[124:136], "size")
        flag = block[156]
        kind = _KINDS.get(flag)
        if kind is not None:
            return self._entry(block, kind, flag, size)
        if flag in b"xXgKL":
            self._extension(flag, size)
            return None
        if flag in b"VNs":  # volume label, GNU's obsolete rename list, socket: nothing of the tree
            self._pass_over(size)
            return None
        if flag == ord("D"):  # a directory of an incremental GNU archive; its contents are a list of names
            entry = self._entry(block, Kind.DIRECTORY, flag, size)
            self._pass_over(size)
            return entry
        name = shown(_text(block, 0, 100))
        raise BadInput(f"layer tar: {self._where}: entry {name!r}: type {chr(flag)!r} is not supported")

    def _extension(self, flag: int, size: int) -> None:
        if size > self._limits.header:
            raise BadInput(
                f"layer tar: {self._where}: extended header of {size} bytes, "
                f"at most {self._limits.header} are allowed"
            )

        def body(data: bytes) -> None:
            data = data[:size]
            if flag in b"KL":
                self._long[flag] = data.partition(b"\0")[0]
            elif flag == ord("g"):
                self._global(pax.parse_records(data, self._where))
            else:
                self._records = pax.parse_records(data, self._where)
            self._want, self._body = BLOCK, None

        if size:
            self._collect(size + (-size % BLOCK), body)
        else:
            body(b"")

    def _global(self, records: pax.Records) -> None:
        if self._records:
            raise BadInput(
                f"layer tar: {self._where}: global header between an extended header and its entry"
            )
        for key, value in records.items():
            # For all entries at once these make no sense; runtimes that ignore global headers would then
            # see other files than those that heed them.
            if value and key.startswith(_PER_ENTRY):
                raise BadInput(f"layer tar: {self._where}: global header sets {shown(key)!r}")
            if key in _FOR_ALL:
                self._globals[key] = value

    def _entry(self, block: bytes, kind: Kind, flag: int, size: int) -> Entry | None:
        # The three numbers repeat from entry to entry, so they are parsed once: a dictionary is 10x faster.
        identity = self._identities.get(block[100:124]) or self._identity(block[100:124])
        seconds = self._times.get(block[136:148])
        if seconds is None:
            seconds = self._time(block[136:148])
        name = _text(block, 0, 100)
        if block[257:263] == b"ustar\0" and block[345]:
            # star's variant keeps access and change time in the prefix's last 24 bytes.
            stop = 476 if block[508:512] == b"tar\0" else 500
            name = _text(block, 345, stop) + b"/" + name
        target = _text(block, 157, 257) if kind is Kind.SYMLINK or kind is Kind.HARDLINK else b""
        if self._records or self._globals or self._long or flag == ord("S"):
            return self._extended(block, kind, flag, size, identity, seconds, name, target)
        return self._complete(name, kind, identity, (seconds, 0), size, target, block)

    def _complete(
        self,
        name: bytes,
        kind: Kind,
        identity: tuple[int, int, int],
        time: tuple[int, int],
        size: int,
        target: bytes,
        block: bytes,
        xattrs: tuple[tuple[bytes, bytes], ...] = (),
    ) -> Entry:
        path = clean_path(name, self._limits.path)
        major = minor = 0
        if kind is Kind.FILE:
            if name[-1:] == b"/":  # as V7 archives mark directories
                kind, size = Kind.DIRECTORY, 0
            else:
                self._pass_over(size)
        else:
            size = 0
            if kind is Kind.HARDLINK:
                target = clean_path(target, self._limits.path)
            elif kind is Kind.CHARACTER or kind is Kind.BLOCK_DEVICE:
                major = self._number(block[329:337], "device number")
                minor = self._number(block[337:345], "device number")
                if major >= 1 << 12 or minor >= 1 << 20:
                    raise BadInput(f"layer tar: entry {shown(path)!r}: device {major}:{minor} is too large")
        if not path and kind is not Kind.DIRECTORY:
            raise BadInput(f"layer tar: {self._where}: entry {shown(name)!r} is the root but no directory")
        offset = self._offset if size else 0
        mode, uid, gid = identity
        if kind is Kind.SYMLINK:
            mode = 0o777  # Linux has no other
        return Entry(path, kind, mode, uid, gid, *time, size, offset, None, target, xattrs, major, minor)

    def _extended(
        self,
        block: bytes,
        kind: Kind,
        flag: int,
        size: int,
        identity: tuple[int, int, int],
        seconds: int,
        name: bytes,
        target: bytes,
    ) -> Entry | None:
        """The same with what PAX records and GNU's long names change, and with a sparse file's map."""
        own, long, self._records, self._long = self._records, self._long, {}, {}
        records = {k: v for k, v in {**self._globals, **own}.items() if v}
        name = long.get(ord("L")) or records.get(b"GNU.sparse.name") or records.get(b"path") or name
        target = long.get(ord("K")) or records.get(b"linkpath") or target
        where = f"entry {shown(name)!r}"
        mode, uid, gid = identity
        if b"uid" in records:
            uid = pax.number(records[b"uid"], f"{where}: uid", _ID_MAX)
        if b"gid" in records:
            gid = pax.number(records[b"gid"], f"{where}: gid", _ID_MAX)
        if b"size" in records:
            size = pax.number(records[b"size"], f"{where}: size")
        time = pax.time(records[b"mtime"], where) if b"mtime" in records else (seconds, 0)
        entry = self._complete(
            name, kind, (mode, uid, gid), time, size, target, block, pax.xattrs(own, where)
        )
        if entry.kind is not Kind.FILE:
            return entry
        if flag == ord("S"):
            return self._old_sparse(entry, block, size, where)
        if records.get(b"GNU.sparse.major") == b"1" and records.get(b"GNU.sparse.minor") == b"0":
            real = pax.number(records.get(b"GNU.sparse.realsize", b""), f"{where}: sparse size", _SIZE_MAX)
            return self._sparse_in_contents(entry, real, size, where)
        if pax.SPARSE_MAP in records:
            real = pax.number(records.get(b"GNU.sparse.size", b""), f"{where}: sparse size", _SIZE_MAX)
            flat = pax.numbers(records[pax.SPARSE_MAP], where)
            return self._sparse(entry, flat, real, size, self._offset, where)
        if any(key.startswith(pax.SPARSE) for key in records):
            raise BadInput(f"layer tar: {where}: sparse format is unknown or has no map")
        return entry

    def _sparse(
        self, entry: Entry, flat: list[int], real: int, stored: int, source: int, where: str
    ) -> Entry:
        runs: tuple[Segment, ...] = pax.segments(
            flat, size=real, stored=stored, source=source, limit=self._limits.segments, where=where
        )
        self._pass_over(stored)
        return entry._replace(size=real, offset=source, sparse=runs)

    def _old_sparse(self, entry: Entry, block: bytes, stored: int, where: str) -> Entry | None:
        """GNU's own: four runs in the header, 21 in each block that may follow it."""
        real = self._number(block[483:495], "sparse size")
        if real > _SIZE_MAX:
            raise BadInput(f"layer tar: {where}: sparse size {real} is out of range")
        flat: list[int] = []

        def runs(data: bytes, at: int, count: int) -> None:
            for slot in range(at, at + 24 * count, 24):
                if not data[slot]:
                    break
                flat.append(self._number(data[slot : slot + 12], "sparse map"))
                flat.append(self._number(data[slot + 12 : slot + 24], "sparse map"))

        def more(data: bytes) -> Entry | None:
            runs(data, 0, 21)
            if len(flat) > 2 * self._limits.segments:
                raise BadInput(f"layer tar: {where}: sparse map: over {self._limits.segments} runs")
            return None if data[504] else self._sparse(entry, flat, real, stored, self._offset, where)

        runs(block, 386, 4)
        if not block[482]:
            return self._sparse(entry, flat, real, stored, self._offset, where)
        self._skip = 0
        self._collect(BLOCK, more)
        return None

    def _sparse_in_contents(self, entry: Entry, real: int, size: int, where: str) -> Entry | None:
        """PAX sparse 1.0: the map is text at the head of the contents, a number a line, padded to a block."""
        text = bytearray()
        lines = 0

        def more(data: bytes) -> Entry | None:
            nonlocal lines
            text.extend(data)
            lines += data.count(b"\n")
            first = text.find(b"\n", 0, 20)
            count = pax.number(bytes(text[: max(0, first)]), f"{where}: sparse map")
            if count > self._limits.segments or len(text) > size:
                raise BadInput(f"layer tar: {where}: sparse map passes its contents or has too many runs")
            if lines < 1 + 2 * count:
                return None
            rest = bytes(text[first + 1 :]).split(b"\n")[: 2 * count]
            flat = [pax.number(line, f"{where}: sparse map") for line in rest]
            return self._sparse(entry, flat, real, size - len(text), self._offset, where)

        self._skip = 0
        self._collect(BLOCK, more)
        return None

    def _identity(self, field: bytes) -> tuple[int, int, int]:
        """Mode, uid and gid from the header's three fields."""
        mode = self._number(field[:8], "mode") & 0o7777
        uid = self._number(field[8:16], "uid")
        gid = self._number(field[16:24], "gid")
        if uid > _ID_MAX or gid > _ID_MAX:
            raise BadInput(f"layer tar: {self._where}: uid {uid} or gid {gid} is too large")
        if len(self._identities) >= _CACHE:
            self._identities.clear()
        self._identities[field] = (mode, uid, gid)
        return mode, uid, gid

    def _time(self, field: bytes) -> int:
        value = self._number(field, "mtime", signed=True)
        if len(self._times) >= _CACHE:
            self._times.clear()
        self._times[field] = value
        return value

    def _number(self, field: bytes, what: str, *, signed: bool = False) -> int:
        """An octal field, padded with spaces or NULs on either side, or GNU's base 256 (first bit set)."""
        text = field[:-1]
        if text.isdigit():  # the common spelling first; 8 and 9 are digits too, and fall through to the error
            try:
                return int(text, 8)
            except ValueError:
                pass
        if field[0] & 0x80:
            bits = 8 * len(field) - 1
            value = int.from_bytes(field, "big") & ((1 << bits) - 1)
            if value >> (bits - 1):
                value -= 1 << bits
        else:
            digits = field.strip(b" \0").partition(b"\0")[0]
            try:
                # int() alone would take signs, spaces, underscores and a prefix.
                value = (int(digits, 8) if digits.isdigit() else _refuse()) if digits else 0
            except ValueError:
                raise BadInput(f"layer tar: {self._where}: {what} {field!r} is not a number") from None
        if not -_INT64 <= value < _INT64 or (value < 0 and not signed):
            raise BadInput(f"layer tar: {self._where}: {what} {value} is out of range")
        return value


def _refuse() -> int:
    raise ValueError


def _text(block: bytes, start: int, stop: int) -> bytes:
    end = block.find(0, start, stop)
    return block[start : end if end >= 0 else stop]


def _signed_sum(block: bytes) -> int:
    """The checksum as ancient writers computed it, with signed bytes."""
    rest = block[:148] + block[156:]
    return sum(rest) - 256 * sum(byte > 127 for byte in rest) + 256
