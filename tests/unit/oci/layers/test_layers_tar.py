"""The tar reader: every header form, every split, every refusal."""

from __future__ import annotations

import io
import tarfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.errors import BadInput
from oci.layers.entry import Entry, Kind, Limits, Segment
from oci.layers.tar import TarReader
from tests.layers.archives import (
    BLOCK,
    END,
    GNU,
    V7,
    checked,
    directory,
    header,
    libarchive_xattr,
    long,
    member,
    padded,
    pax,
    records,
    sparse_gnu,
    sparse_pax,
)
from tests.layers.seeds import SEEDS


def read(tar: bytes, step: int = 0, limits: Limits | None = None) -> list[Entry]:
    reader = TarReader(limits)
    entries: list[Entry] = []
    for at in range(0, len(tar), step or len(tar) or 1):
        entries += reader.receive(tar[at : at + (step or len(tar))])
    reader.finish()
    return entries


def refusal(tar: bytes, limits: Limits | None = None) -> str:
    with pytest.raises(BadInput) as caught:
        read(tar, limits=limits)
    return str(caught.value)


@pytest.mark.parametrize("name", SEEDS)
@pytest.mark.parametrize("step", [1, 7, 511, 512, 513, 4096])
def test_any_split_of_the_archive_gives_the_same_entries(name: str, step: int) -> None:
    tar = SEEDS[name]()
    if step == 1:
        tar = tar[: 30 * BLOCK] + END if name == "shapes" else tar
    assert read(tar, step) == read(tar)


def test_bytes_bytearray_and_memoryview_are_alike() -> None:
    tar = SEEDS["plain"]()
    whole = read(tar)
    for kind in (bytearray, memoryview):
        reader = TarReader()
        assert reader.receive(kind(tar)) == whole


def test_a_ustar_entry_is_read_field_by_field() -> None:
    tar = header(b"name", prefix=b"a/b", mode=0o104755, uid=7, gid=8, size=3, mtime=9) + padded(b"xyz")
    assert read(tar + END) == [
        Entry(b"a/b/name", Kind.FILE, 0o4755, 7, 8, 9, 0, 3, 512),
    ]


def test_each_type_byte_gives_its_kind() -> None:
    tar = b"".join(
        (
            header(b"f", flag=b"0"),
            header(b"old", flag=b"\0", magic=V7),
            header(b"dir-of-v7/", flag=b"\0", magic=V7),
            header(b"cont", flag=b"7"),
            header(b"hard", flag=b"1", link=b"./f"),
            header(b"soft", flag=b"2", link=b"./f"),
            header(b"chr", flag=b"3", device=(4, 64)),
            header(b"blk", flag=b"4", device=(8, 1 << 19)),
            header(b"dir", flag=b"5"),
            header(b"fifo", flag=b"6"),
            header(b"dump", flag=b"D", size=5) + padded(b"Ya\0\0\0"),
            header(b"volume", flag=b"V"),
            END,
        )
    )
    found = {e.path: (e.kind, e.target, e.major, e.minor, e.mode) for e in read(tar)}
    assert found == {
        b"f": (Kind.FILE, b"", 0, 0, 0o644),
        b"old": (Kind.FILE, b"", 0, 0, 0o644),
        b"dir-of-v7": (Kind.DIRECTORY, b"", 0, 0, 0o644),
        b"cont": (Kind.FILE, b"", 0, 0, 0o644),
        b"hard": (Kind.HARDLINK, b"f", 0, 0, 0o644),
        b"soft": (Kind.SYMLINK, b"./f", 0, 0, 0o777),
        b"chr": (Kind.CHARACTER, b"", 4, 64, 0o644),
        b"blk": (Kind.BLOCK_DEVICE, b"", 8, 1 << 19, 0o644),
        b"dir": (Kind.DIRECTORY, b"", 0, 0, 0o644),
        b"fifo": (Kind.FIFO, b"", 0, 0, 0o644),
        b"dump": (Kind.DIRECTORY, b"", 0, 0, 0o644),
    }


def test_a_socket_is_left_out_with_what_it_claims_to_hold() -> None:
    reader = TarReader()
    tar = header(b"run/socket", flag=b"s", size=700) + bytes(1024) + member(b"file", b"x") + END
    assert [entry.path for entry in reader.receive(tar)] == [b"file"]
    reader.finish()


def test_only_files_have_contents_whatever_the_size_field_says() -> None:
    tar = header(b"l", flag=b"1", link=b"f", size=4096) + header(b"d", flag=b"5", size=9) + member(b"f", b"x")
    assert [(e.path, e.size, e.offset) for e in read(tar + END)] == [
        (b"l", 0, 0), (b"d", 0, 0), (b"f", 1, 3 * BLOCK),
    ]  # fmt: skip


def test_numbers_may_be_padded_with_spaces_and_nuls_or_be_base_256() -> None:
    block = bytearray(header(b"f", uid=0o7777777 + 1, gid=1 << 31, mtime=-3, size=2))
    block[100:108] = b"  644 \0\0"
    entry = read(checked(bytes(block)) + padded(b"ab") + END)[0]
    assert (entry.mode, entry.uid, entry.gid, entry.seconds, entry.size) == (0o644, 1 << 21, 1 << 31, -3, 2)


def test_the_old_signed_checksum_is_accepted() -> None:
    block = bytearray(header(b"\xe4\xf6\xfc"))
    rest = bytes(block[:148] + block[156:])
    signed = sum(b - 256 if b > 127 else b for b in rest) + 8 * 32
    block[148:156] = b"%06o\0 " % signed
    assert [e.path for e in read(bytes(block) + END)] == [b"\xe4\xf6\xfc"]


def test_gnu_long_names_and_links_belong_to_the_next_entry_alone() -> None:
    tar = long(b"n" * 300) + long(b"t" * 301, b"K") + header(b"n", flag=b"2", link=b"t", magic=GNU)
    tar += header(b"next", flag=b"2", link=b"u", magic=GNU) + END
    assert [(e.path, e.target) for e in read(tar)] == [(b"n" * 300, b"t" * 301), (b"next", b"u")]


def test_pax_records_win_over_the_header_and_an_empty_one_takes_itself_back() -> None:
    pairs = [
        (b"path", b"p"), (b"size", b"2"), (b"uid", b"3000000"), (b"gid", b"4"), (b"mtime", b"1.000000001"),
        (b"linkpath", b""), (b"atime", b"9"), (b"comment", b"=\n="),
    ]  # fmt: skip
    tar = pax(pairs) + header(b"h", size=99, mtime=5) + padded(b"ab") + member(b"after", b"c") + END
    assert read(tar) == [
        Entry(b"p", Kind.FILE, 0o644, 3000000, 4, 1, 1, 2, 1536),
        Entry(b"after", Kind.FILE, 0o644, 0, 0, 0, 0, 1, 2560),
    ]


@pytest.mark.parametrize(
    ("text", "time"),
    [
        (b"0", (0, 0)),
        (b"12.", (12, 0)),
        (b"12.5", (12, 500_000_000)),
        (b"12.1234567899", (12, 123_456_789)),
        (b"-1", (-1, 0)),
        (b"-0.25", (-1, 750_000_000)),
        (b"-2.000000001", (-3, 999_999_999)),
    ],
)
def test_pax_times_keep_nanoseconds_and_signs(text: bytes, time: tuple[int, int]) -> None:
    entry = read(pax([(b"mtime", text)]) + header(b"f") + END)[0]
    assert (entry.seconds, entry.nanoseconds) == time


def test_a_global_header_holds_until_changed_and_below_an_entrys_own() -> None:
    tar = pax([(b"mtime", b"7.5"), (b"uid", b"9"), (b"comment", b"c")], b"g") + header(b"a")
    tar += pax([(b"mtime", b"8")]) + header(b"b") + pax([(b"mtime", b"")], b"g") + header(b"c", mtime=1) + END
    assert [(e.path, e.seconds, e.nanoseconds, e.uid) for e in read(tar)] == [
        (b"a", 7, 500_000_000, 9), (b"b", 8, 0, 9), (b"c", 1, 0, 9),
    ]  # fmt: skip


def test_both_spellings_of_attributes_are_read_and_sorted() -> None:
    pairs = [
        (b"SCHILY.xattr.user.z", b"1"),
        (b"SCHILY.xattr.user.a%3Db%25", b"\0\n="),
        libarchive_xattr(b"user.l%2Fx", b"\xff\0"),
        libarchive_xattr(b"user.z", b"loses"),
    ]
    assert read(pax(pairs) + header(b"f") + END)[0].xattrs == (
        (b"user.a=b%", b"\0\n="),
        (b"user.l/x", b"\xff\0"),
        (b"user.z", b"1"),
    )


RUNS = [(0, b"a" * 1024), (8192, b"b" * 512), (1 << 20, b"tail")]


@pytest.mark.parametrize("form", ["gnu", "0.0", "0.1", "1.0"])
def test_every_sparse_format_gives_the_same_map(form: str) -> None:
    real = (1 << 20) + 4
    tar = sparse_gnu(b"s", RUNS, real) if form == "gnu" else sparse_pax(b"s", RUNS, real, form)
    start = {"gnu": 512, "0.0": 1536, "0.1": 1536, "1.0": 2048}[form]
    entries = read(tar + member(b"next", b"n") + END)
    assert entries[0].sparse == (
        Segment(0, 1024, start), Segment(8192, 512, start + 1024), Segment(1 << 20, 4, start + 1536),
    )  # fmt: skip
    assert (entries[0].path, entries[0].size, entries[1].path) == (b"s", real, b"next")


def test_an_old_sparse_map_continues_in_blocks_of_its_own() -> None:
    runs = [(i * 1024, bytes(512)) for i in range(50)]
    entries = read(sparse_gnu(b"s", runs, 50 * 1024) + member(b"next") + END)
    assert entries[0].sparse == tuple(Segment(i * 1024, 512, 4 * BLOCK + i * 512) for i in range(50))
    assert entries[1].path == b"next"


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"./a", b"a"), (b"/a", b"a"), (b"//a///b/", b"a/b"), (b"a/./b", b"a/b"), (b"a/b/../c", b"a/c"),
        (b".a", b".a"), (b"..a/b..", b"..a/b.."), (b"./", b""), (b"/", b""), (b".", b""), (b"a/..", b""),
        (b"a//", b"a"), (b"\xff/\n", b"\xff/\n"),
    ],
)  # fmt: skip
def test_paths_are_cleaned_inside_the_root(raw: bytes, path: bytes) -> None:
    assert read(header(raw, flag=b"5") + END)[0].path == path


@pytest.mark.parametrize("raw", [b"..", b"../a", b"a/../../b", b"/..", b"./../etc/passwd"])
def test_a_path_or_link_target_that_leaves_the_root_is_refused(raw: bytes) -> None:
    assert refusal(header(raw, flag=b"5") + END) == (
        f"layer: entry {raw.decode()!r}: path leaves the root of the layer"
    )
    assert "leaves the root" in refusal(header(b"l", flag=b"1", link=raw) + END)


def test_a_symlinks_target_may_point_anywhere() -> None:
    assert read(header(b"l", flag=b"2", link=b"../../../etc") + END)[0].target == b"../../../etc"


def test_two_zero_blocks_end_the_archive_and_garbage_behind_them_is_ignored() -> None:
    reader = TarReader()
    assert len(reader.receive(member(b"a", b"1") + END + b"garbage" * 1000)) == 1
    assert reader.receive(b"\xff" * 100_000) == []
    reader.finish()
    assert (reader.ended, reader.received) == (True, 2 * BLOCK + 2 * BLOCK + 107_000)


def test_the_mark_at_the_end_may_be_missing_or_half() -> None:
    for end in (b"", bytes(BLOCK)):
        reader = TarReader()
        reader.receive(member(b"a", b"1") + end)
        reader.finish()
        assert not reader.ended
    assert read(b"") == []


def test_one_zero_block_and_then_more_is_refused() -> None:
    assert "one zero block, then more" in refusal(member(b"a") + bytes(BLOCK) + member(b"b") + END)


@pytest.mark.parametrize("name", SEEDS)
def test_every_truncation_is_refused_or_ends_between_entries(name: str) -> None:
    tar = SEEDS[name]()
    whole = read(tar)
    for cut in range(0, len(tar), 256):
        reader = TarReader()
        entries = reader.receive(tar[:cut])
        assert entries == whole[: len(entries)]
        ends = [e.offset + e.size for e in entries if e.kind is Kind.FILE and e.size and e.sparse is None]
        try:
            reader.finish()
        except BadInput as error:
            assert f"truncated at byte {cut}" in str(error) or "ends after an extended" in str(error)
        else:
            assert cut % BLOCK == 0
            assert all(end <= cut for end in ends)


def test_contents_without_their_padding_are_truncated() -> None:
    assert "511 bytes of contents or padding lack" in refusal(header(b"f", size=1) + b"x")


def test_an_error_is_final() -> None:
    reader = TarReader()
    with pytest.raises(BadInput):
        reader.receive(b"\xff" * BLOCK)
    for call in (lambda: reader.receive(END), reader.finish):
        with pytest.raises(BadInput, match="wrong checksum"):
            call()


def changed(at: int, text: bytes, **options: Any) -> bytes:
    block = bytearray(header(b"f", **options))
    block[at : at + len(text)] = text
    return checked(bytes(block))


@pytest.mark.parametrize(
    ("tar", "words"),
    [
        (b"\x1f\x8b" * 256, "wrong checksum"),
        (changed(124, b"00000000009\0"), "size b'00000000009\\x00' is not a number"),
        (changed(124, b"0o000000011\0"), "is not a number"),
        (changed(100, b"-000644\0"), "is not a number"),
        (changed(124, b"\xff" * 12), "size -1 is out of range"),
        (changed(124, b"\x80" + b"\xff" * 11), "is out of range"),
        (header(b"f", uid=(1 << 32) - 1), "uid 4294967295 or gid 0 is too large"),
        (header(b"d", flag=b"3", device=(1 << 12, 0)), "device 4096:0 is too large"),
        (header(b"m", flag=b"M"), "entry 'm': type 'M' is not supported"),
        (header(b"."), "entry '.' is the root but no directory"),
        (header(b"x", flag=b"x", size=(1 << 20) + 1), "extended header of 1048577 bytes"),
        (header(b"x", flag=b"x", size=4) + padded(b"zz=\n"), "does not begin with its length"),
        (header(b"x", flag=b"x", size=6) + padded(b"9 a=b\n"), "malformed"),
        (header(b"x", flag=b"x", size=6) + padded(b"6 a=bc"), "malformed"),
        (pax([(b"path", b"a\0b")]) + header(b"f"), "NUL byte"),
        (pax([(b"size", b"-1")]) + header(b"f"), "entry 'f': size: b'-1' is not a number"),
        (pax([(b"uid", b"4294967295")]) + header(b"f"), "uid"),
        (pax([(b"mtime", b"1e3")]) + header(b"f"), "is not a time"),
        (pax([(b"mtime", b"9" * 19)]) + header(b"f"), "is not a time"),
        (pax([(b"SCHILY.xattr.", b"1")]) + header(b"f"), "no name"),
        (pax([(b"LIBARCHIVE.xattr.user.a", b"***")]) + header(b"f"), "not base64"),
        (pax([(b"path", b"a")]) + END, "ends after an extended header"),
        (pax([(b"path", b"a")]), "truncated at byte 1024: inside a header"),
        (pax([(b"path", b"a")], b"g"), "global header sets 'path'"),
        (pax([(b"size", b"1")], b"g"), "global header sets 'size'"),
        (pax([(b"SCHILY.xattr.user.a", b"1")], b"g"), "global header sets 'SCHILY.xattr.user.a'"),
        (pax([(b"path", b"a")]) + pax([(b"mtime", b"1")], b"g"), "between an extended header and its entry"),
        (pax([(b"path", b"p" * 4097)]) + header(b"f"), "at most 4096 are allowed"),
        (sparse_pax(b"s", [(512, b"x")], 512, "1.0"), "pass the file's size 512"),
        (sparse_pax(b"s", [(512, b"x" * 512), (0, b"y")], 2048, "0.1"), "overlap"),
        (sparse_pax(b"s", [(100, b"x")], 200, "0.0"), "not aligned"),
        (sparse_pax(b"s", [(0, b"x"), (512, b"y")], 513, "0.1"), "not aligned"),
        (pax([(b"GNU.sparse.size", b"9")]) + header(b"f"), "unknown or has no map"),
        (pax([(b"GNU.sparse.numbytes", b"9")]) + header(b"f"), "do not alternate"),
        (
            pax([(b"GNU.sparse.map", b"0,512"), (b"GNU.sparse.size", b"512")]) + header(b"f", size=1024),
            "runs of 512 bytes, the archive holds 1024",
        ),
        (
            pax([(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9")])
            + header(b"f", size=512) + padded(b"1\n0\n"),
            "truncated",
        ),
    ],
)  # fmt: skip
def test_a_damaged_archive_is_refused_with_its_place(tar: bytes, words: str) -> None:
    assert words in refusal(tar)


def test_limits_hold() -> None:
    tar = member(b"a") + member(b"b") + END
    assert refusal(tar, Limits(entries=1)) == "layer tar: more than 1 entries"
    tar = sparse_pax(b"s", RUNS, (1 << 20) + 4, "1.0")
    assert "too many runs" in refusal(tar, Limits(segments=2))
    assert "over 2 runs" in refusal(sparse_pax(b"s", RUNS, (1 << 20) + 4, "0.1"), Limits(segments=2))


def test_huge_sizes_are_stepped_over_not_stored() -> None:
    reader = TarReader()
    entry = reader.receive(header(b"huge", size=1 << 45))[0]
    assert (entry.size, entry.offset) == (1 << 45, 512)
    with pytest.raises(BadInput, match="35184372088832 bytes of contents"):
        reader.finish()


NAMES = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=60)


@given(
    names=st.lists(NAMES.filter(lambda n: n not in (".", "..")), min_size=1, max_size=4),
    size=st.integers(0, 2000),
    mtime=st.integers(0, 1 << 36),
    uid=st.integers(0, (1 << 32) - 2),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_what_pythons_tarfile_writes_is_read_back(
    names: list[str], size: int, mtime: int, uid: int, form: int
) -> None:
    info = tarfile.TarInfo("/".join(names))
    info.size, info.mtime, info.uid = size, mtime, uid
    info.pax_headers = {"mtime": f"{mtime}.5"} if form == tarfile.PAX_FORMAT else {}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        archive.addfile(info, io.BytesIO(b"d" * size))
    (entry,) = read(out.getvalue(), 700)
    assert entry[:7] == (
        "/".join(names).encode(), Kind.FILE, 0o644, uid, 0, mtime,
        500_000_000 if form == tarfile.PAX_FORMAT else 0,
    )  # fmt: skip
    assert entry.size == size
    assert out.getvalue()[entry.offset : entry.offset + size] == b"d" * size or not size


def test_records_state_their_own_length() -> None:
    for length in (1, 85, 86, 87, 88, 985, 986, 9990):
        text = records([(b"k", b"v" * length)])
        assert int(text.split(b" ")[0]) == len(text)
    assert [e.path for e in read(directory(b"d") + END)] == [b"d"]
