"""Looking into a container's root file system: users, the working directory, places for mounts.

The files were written by whoever made the image: they may be pipes, devices, loops of links or endless.
Every function here takes bounded time and memory, follows links only inside the root, and never opens what
is not a regular file. All of them block.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from oci.bundle.process import refuse_descriptors
from oci.bundle.text import absolute_path
from oci.errors import BadInput
from oci.facts import ResolvedUser
from oci.workload import UserChoice
from shim.kernel.openat2 import open_in_root

HIGHEST_ID = (1 << 31) - 1
"""The largest uid or gid that is taken: larger ones wrap in some programs, in the worst case to 0."""

_MOST_BYTES = 1024 * 1024
_LONGEST_LINE = 64 * 1024
_MOST_GROUPS = 65536  # NGROUPS_MAX of the kernel
_MOST_LINKS = 40  # MAXSYMLINKS of the kernel
_NUMBER = re.compile(r"[0-9]+\Z")
_NUMBER_LIKE = re.compile(r"[+-]?[0-9]+\Z")
_FIELD = "config.linux.security_context"
_POD_FILES = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Account:
    name: str
    uid: str
    gid: str
    home: str


def resolve_user(rootfs: str | Path, choice: UserChoice, image_user: str) -> ResolvedUser:
    """The identity that the request, or else the image's USER, names in this root file system.

    USER forms: `user`, `uid`, either with `:group` or `:gid`; empty is root. A number needs no entry in
    passwd, a name does. The groups always contain the primary one; with the Merge policy those of the image's
    /etc/group that list the user by name join the requested ones. Raises BadInput naming the field: an
    unknown name, a number outside 0..2^31-1 (it never becomes 0), a passwd or group that cannot be trusted.
    """
    user_text, group_text, field = _wanted(choice, image_user)
    accounts = _accounts(rootfs)
    account: _Account | None
    if _NUMBER_LIKE.match(user_text):
        uid = _id(field, user_text)
        account = next((one for one in accounts if _is_number(one.uid, uid)), None)
    else:
        account = next((one for one in accounts if one.name == user_text), None)
        if account is not None:
            uid = _id(f"{field}: uid of {user_text[:80]!r} in the image's /etc/passwd", account.uid)
        elif user_text == "root":
            uid = 0  # an image without a passwd still has root
        else:
            raise BadInput(f"{field}: user {user_text[:80]!r} is not in the image's /etc/passwd")
    gid = _gid(rootfs, field, group_text, account)
    groups = {gid, *(_id(f"{_FIELD}.supplemental_groups", str(one)) for one in choice.supplemental_groups)}
    if not choice.strict_groups and account is not None:
        groups |= set(_member_of(rootfs, account.name))
    if len(groups) > _MOST_GROUPS:
        raise BadInput(f"{_FIELD}.supplemental_groups: {len(groups)} groups, the kernel takes {_MOST_GROUPS}")
    return ResolvedUser(
        uid=uid,
        gid=gid,
        groups=tuple(sorted(groups)),
        home=_home(account),
        name=account.name if account is not None else "",
    )


def _wanted(choice: UserChoice, image_user: str) -> tuple[str, str, str]:
    """User, group ("" for the user's own) and the field they come from."""
    if choice.uid is not None or choice.username:
        if choice.uid is not None:
            user, field = str(choice.uid), f"{_FIELD}.run_as_user"
        else:
            user, field = choice.username, f"{_FIELD}.run_as_username"
            if _NUMBER_LIKE.match(user):
                raise BadInput(f"{field}: {user[:40]!r} is a number, which run_as_user is for")
        return user, "" if choice.gid is None else str(choice.gid), field
    if choice.gid is not None:
        raise BadInput(f"{_FIELD}.run_as_group: set without run_as_user or run_as_username")
    user, _, group = image_user.partition(":")
    return user or "0", group, "image USER"


def _gid(rootfs: str | Path, field: str, group: str, account: _Account | None) -> int:
    if group:
        if _NUMBER_LIKE.match(group):
            return _id(f"{field}, group", group)
        for name, gid, _ in _groups(rootfs):
            if name == group:
                return _id(f"{field}: gid of {group[:80]!r} in the image's /etc/group", gid)
        raise BadInput(f"{field}: group {group[:80]!r} is not in the image's /etc/group")
    if account is None:
        return 0
    return _id(f"{field}: gid of {account.name[:80]!r} in the image's /etc/passwd", account.gid)


def _id(field: str, text: str) -> int:
    if not _NUMBER.match(text) or len(text) > 32 or int(text) > HIGHEST_ID:
        raise BadInput(f"{field}: {text[:40]!r} is not a number from 0 to {HIGHEST_ID}")
    return int(text)


def _is_number(text: str, number: int) -> bool:
    return _NUMBER.match(text) is not None and len(text) <= 32 and int(text) == number


def _home(account: _Account | None) -> str:
    """The home directory, if it can be a line of an environment and a path; else the root."""
    if account is None or not account.home.startswith("/") or not account.home.isprintable():
        return "/"
    return account.home


def _accounts(rootfs: str | Path) -> list[_Account]:
    """The readable lines of /etc/passwd (passwd(5)); others are not accounts."""
    found = []
    for parts in _lines(rootfs, "/etc/passwd"):
        if len(parts) >= 4 and parts[0]:
            home = parts[5] if len(parts) > 5 else "/"
            found.append(_Account(name=parts[0], uid=parts[2], gid=parts[3], home=home))
    return found


def _groups(rootfs: str | Path) -> Iterator[tuple[str, str, list[str]]]:
    """Name, gid and members of each line of /etc/group (group(5))."""
    for parts in _lines(rootfs, "/etc/group"):
        if len(parts) >= 4 and parts[0]:
            yield parts[0], parts[2], parts[3].split(",")


def _member_of(rootfs: str | Path, name: str) -> Iterator[int]:
    for _, gid, members in _groups(rootfs):
        if name in members:
            yield _id(f"a gid in the image's /etc/group that lists {name[:80]!r}", gid)


def _lines(rootfs: str | Path, path: str) -> Iterator[list[str]]:
    content = read_regular(rootfs, path, most=_MOST_BYTES)
    for line in (content or b"").split(b"\n"):
        if len(line) <= _LONGEST_LINE and line and not line.startswith(b"#"):
            yield line.decode("utf-8", "surrogateescape").strip().split(":")


def read_regular(rootfs: str | Path, path: str, *, most: int) -> bytes | None:
    """The content of a regular file inside the root; None when there is none.

    Raises BadInput for anything else at that path (pipe, device, directory, loop of links) and for a file
    over `most` bytes. The file is looked at before it is opened, so that no pipe or device is.
    """
    try:
        looked = open_in_root(rootfs, path, os.O_PATH)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ENOTDIR:
            return None
        raise BadInput(f"the image's {path}: cannot be opened ({os.strerror(error.errno or 0)})") from error
    try:
        seen = os.fstat(looked)
        if not stat.S_ISREG(seen.st_mode):
            raise BadInput(f"the image's {path}: not a regular file")
        if seen.st_size > most:
            raise BadInput(f"the image's {path}: {seen.st_size} bytes, over the {most} that are read")
        reading = os.open(f"/proc/self/fd/{looked}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    finally:
        os.close(looked)
    with os.fdopen(reading, "rb") as file:
        return file.read(most)


def check_working_dir(rootfs: str | Path, path: str) -> str:
    """`path` normalised, if a process may start there; what does not exist the runtime makes.

    Raises BadInput when links lead above the root or into a process's descriptors, or to a file.
    """
    field = "config.working_dir"
    normal = refuse_descriptors(field, absolute_path(field, path))
    place = refuse_descriptors(field, resolve_inside(rootfs, normal, field=field))
    try:
        seen = os.stat(f"{os.fspath(rootfs)}{place}", follow_symlinks=False)  # noqa: PTH116 -- not a Path's join
    except FileNotFoundError:
        return normal
    except OSError as error:
        raise BadInput(f"{field}: {normal!r}: {os.strerror(error.errno or 0)}") from error
    if not stat.S_ISDIR(seen.st_mode):
        raise BadInput(f"{field}: {normal!r} is not a directory in the image")
    return normal


def check_mount_targets(rootfs: str | Path, targets: Iterable[str]) -> None:
    """Refuse a root file system whose links lead mounts elsewhere than they say.

    /proc, /sys and /dev must not be links (CVE-2023-28642); no target, nor one of the pod's files, may lead
    onto the root itself or into /proc (CVE-2019-16884). Raises BadInput naming the path.
    """
    for path in ("/proc", "/sys", "/dev"):
        if (Path(rootfs) / path[1:]).is_symlink():
            raise BadInput(f"the image's {path} is a symbolic link, mounts cannot be trusted to it")
    for target in (*_POD_FILES, *targets):
        normal = absolute_path("mount target", target)
        field = f"mount target {normal!r}"
        place = resolve_inside(rootfs, normal, field=field, climb=True)
        inside_proc = place == "/proc" or place.startswith("/proc/")
        if place == "/" or (inside_proc and place != normal):
            raise BadInput(f"{field}: links in the image lead it to {place!r}")


def resolve_inside(rootfs: str | Path, path: str, *, field: str, climb: bool = False) -> str:
    """Where an absolute path leads when `rootfs` is the root; what does not exist is taken as it stands.

    Raises BadInput after 40 links, and when a link climbs above the root; with `climb` it stays at the root,
    as the kernel has it. The root file system must not be changing: nobody runs in it yet.
    """
    top = os.fspath(rootfs)
    resolved: list[str] = []
    pending = path.split("/")[::-1]
    links = 0
    while pending:
        part = pending.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if resolved:
                resolved.pop()
            elif not climb:
                raise BadInput(f"{field}: {path!r} leads above the root file system")
            continue
        try:
            link = os.readlink("/".join((top, *resolved, part)))  # noqa: PTH115 -- joined by hand, never normalised
        except OSError:  # not a link, or nothing there: taken as it stands
            resolved.append(part)
            continue
        links += 1
        if links > _MOST_LINKS:
            raise BadInput(f"{field}: {path!r} leads over {_MOST_LINKS} symbolic links (ELOOP)")
        if link.startswith("/"):
            resolved.clear()
        pending.extend(link.split("/")[::-1])
    return "/" + "/".join(resolved)
