"""Extended attributes of an entry: which of them a layer may carry, and how EROFS keeps them in an inode.

Knows one entry at a time. Format: Linux, fs/erofs/erofs_fs.h (inline attributes); for ACLs
include/uapi/linux/posix_acl_xattr.h and acl(5).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from oci.errors import BadInput
from oci.layers.entry import Entry, Kind, shown

OPAQUE = (b"trusted.overlay.opaque", b"y")
# "Copied up from nobody knows where": with it overlayfs looks for whiteouts when it lists the directory also
# where no other layer has it; without, they would be listed and not be there (fs/overlayfs/inode.c).
ORIGIN = (b"trusted.overlay.origin", b"")

_HEAD = 12
_ROOM = 4 * 0xFFFE  # what the 16-bit count of an inode can say
_USER, _ACCESS, _DEFAULT, _TRUSTED, _SECURITY = 1, 2, 3, 4, 6
_PREFIXES = ((b"user.", _USER), (b"trusted.", _TRUSTED), (b"security.", _SECURITY))
_ACCESS_NAME = b"system.posix_acl_access"
_WHOLE = {_ACCESS_NAME: _ACCESS, b"system.posix_acl_default": _DEFAULT}
_OVERLAY = b"trusted.overlay."
_CAPABILITY = b"security.capability"

_ACL_ENTRY = struct.Struct("<HHI")
_ACL_OWNER, _ACL_GROUP, _ACL_MASK, _ACL_OTHERS = 1, 4, 16, 32
_ACL_ORDER = {1: 0, 2: 1, 4: 2, 8: 3, 16: 4, 32: 5}  # owner, users, group, groups, mask, others
_ACL_ONCE = (_ACL_OWNER, _ACL_GROUP, _ACL_OTHERS)


def settled(entry: Entry) -> Entry:
    """The entry as it is once its access ACL and then its mode have been set, as whoever unpacks does it.

    chmod(2) writes owner, others, and the mask or else the group, into the ACL (fs/posix_acl.c); an ACL that
    says no more than a mode can is not kept at all. Raises BadInput for what is no ACL.
    """
    value = next((value for name, value in entry.xattrs if name == _ACCESS_NAME), None)
    if value is None or entry.kind is Kind.SYMLINK:
        return entry
    _index(entry, _ACCESS_NAME, value)
    parts = list(_ACL_ENTRY.iter_unpack(value[4:]))
    tags = {tag for tag, _, _ in parts}
    xattrs = tuple(pair for pair in entry.xattrs if pair[0] != _ACCESS_NAME)
    if tags != {_ACL_OWNER, _ACL_GROUP, _ACL_OTHERS}:
        group = _ACL_MASK if _ACL_MASK in tags else _ACL_GROUP
        said = {_ACL_OWNER: entry.mode >> 6 & 7, group: entry.mode >> 3 & 7, _ACL_OTHERS: entry.mode & 7}
        value = value[:4] + b"".join(
            _ACL_ENTRY.pack(tag, said.get(tag, share), identity) for tag, share, identity in parts
        )
        xattrs = tuple(sorted((*xattrs, (_ACCESS_NAME, value))))
    return entry._replace(xattrs=xattrs)


def kept(entry: Entry) -> tuple[tuple[bytes, bytes], ...]:
    """The attributes that the entry has in the layer's tree.

    Left out are overlayfs's own marks: a layer says what it hides by whiteouts, and a redirect or a
    metacopy mark from outside could show one file under another's name. Left out too is what no file system
    could hold: other namespaces, `user.` on anything but files and directories, ACLs of symlinks. BadInput
    for what setxattr(2) would refuse: a malformed ACL or file capability, what is too large.
    """
    return tuple(pair for pair in entry.xattrs if _index(entry, *pair)[0])


def inline(entry: Entry, marks: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """What stands behind the inode, `marks` (OPAQUE, ORIGIN) last; empty where there is nothing to keep."""
    if not marks and not entry.xattrs:
        return b""
    pairs = [(*_index(entry, name, value), value) for name, value in entry.xattrs]
    pairs += [(_TRUSTED, name[len(b"trusted.") :], value) for name, value in marks]
    out = bytearray()
    for index, rest, value in pairs:
        if index:
            item = struct.pack("<BBH", len(rest), index, len(value)) + rest + value
            out += item + bytes(-len(item) % 4)
    if len(out) > _ROOM:
        raise BadInput(f"layer: entry {shown(entry.path)!r}: its attributes take {len(out)} bytes")
    return bytes(_HEAD) + out if out else b""


def count(attributes: bytes) -> int:
    """How an inode says the length of `inline`'s result: the header as one, then units of four bytes."""
    return (len(attributes) - _HEAD) // 4 + 1 if attributes else 0


def _index(entry: Entry, name: bytes, value: bytes) -> tuple[int, bytes]:
    """EROFS's number for the name's prefix, 0 to leave the attribute out, and the rest of the name."""
    index, rest = _WHOLE.get(name, 0), b""
    if index:
        if entry.kind is Kind.SYMLINK or (index == _DEFAULT and entry.kind is not Kind.DIRECTORY):
            return 0, b""
        if not _is_acl(value):
            raise BadInput(f"layer: entry {shown(entry.path)!r}: attribute {shown(name)!r} is not an ACL")
    else:
        for prefix, number in _PREFIXES:
            if name.startswith(prefix) and len(name) > len(prefix):
                index, rest = number, name[len(prefix) :]
        if name == _CAPABILITY and not _is_capability(value):
            # The kernel checks it when it is set, and complains in its log when it runs such a file.
            raise BadInput(f"layer: entry {shown(entry.path)!r}: {shown(name)!r} is not a file capability")
        if name.startswith(_OVERLAY) or (index == _USER and entry.kind not in (Kind.FILE, Kind.DIRECTORY)):
            return 0, b""
    if index and (len(name) > 255 or len(value) > 0xFFFF):
        raise BadInput(f"layer: entry {shown(entry.path)!r}: attribute {shown(name)!r} is too large")
    return index, rest


def _is_acl(value: bytes) -> bool:
    """Whether the kernel would have stored it: version 2, entries in order, the three basic ones, a mask
    where single users or groups are named."""
    if value[:4] != b"\2\0\0\0" or len(value) % _ACL_ENTRY.size != 4:
        return False
    entries = list(_ACL_ENTRY.iter_unpack(value[4:]))
    tags = [tag for tag, _, _ in entries]
    if any(tag not in _ACL_ORDER or permissions > 7 for tag, permissions, _ in entries):
        return False
    if any(tag in (2, 8) and identity == 0xFFFFFFFF for tag, _, identity in entries):
        return False
    if [_ACL_ORDER[tag] for tag in tags] != sorted(_ACL_ORDER[tag] for tag in tags):
        return False
    named = 2 in tags or 8 in tags
    return all(tags.count(tag) == 1 for tag in _ACL_ONCE) and tags.count(_ACL_MASK) in (
        (1,) if named else (0, 1)
    )


def _is_capability(value: bytes) -> bool:
    """Version 2, or 3 with the id of a user namespace's root (include/uapi/linux/capability.h)."""
    if len(value) not in (20, 24):
        return False
    version = int.from_bytes(value[:4], "little") & ~1  # bit 0 says "effective"
    return version == (0x02000000 if len(value) == 20 else 0x03000000) and value[20:] != b"\xff" * 4
