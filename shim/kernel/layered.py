"""Overlay and EROFS mounts: stacks of layers without a limit by the length of the options.

Overlay: from Linux 6.8 each layer is one `lowerdir+` of fsconfig(2), which takes 255 bytes a string; before,
mount(2) takes one page for all of them. Whatever is too long goes as /proc/self/fd/N of a directory opened
for the purpose, which the kernel resolves once, at mount time (kernel: fs/overlayfs/params.c).
EROFS: an index and the layer's tar as a second device, both plain files (Linux 6.12, fs/erofs/super.c).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from oci.errors import Unsupported
from shim.kernel import libc, mount, probe

MAX_LAYERS = 500
"""OVL_MAX_STACK: what the kernel allows, whatever the options' length."""

_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_SET_FLAG, _SET_STRING, _CMD_CREATE = 0, 1, 6
_STRING_LIMIT = 255


@contextlib.contextmanager
def file_system(fstype: str) -> Iterator[int]:
    """A file system under construction (fsopen(2), Linux 5.2). Raises OSError, ENODEV for an unknown type."""
    context = libc.syscall(libc.SYS_FSOPEN, "fsopen", fstype.encode("ascii"), _FSOPEN_CLOEXEC)
    try:
        yield context
    finally:
        os.close(context)


def configure(context: int, key: str, value: str | None = None) -> None:
    """One option; None makes it a flag. Raises OSError with what the kernel wrote to its log."""
    try:
        if value is None:
            libc.syscall(libc.SYS_FSCONFIG, "fsconfig", context, _SET_FLAG, key.encode("ascii"), None, 0)
        else:
            libc.syscall(
                libc.SYS_FSCONFIG,
                "fsconfig",
                context,
                _SET_STRING,
                key.encode("ascii"),
                os.fsencode(value),
                0,
            )
    except OSError as error:
        raise _told(context, error, f"option {key}") from error


def create(context: int) -> None:
    """Make the superblock of what was configured. Raises OSError with the kernel's words."""
    try:
        libc.syscall(libc.SYS_FSCONFIG, "fsconfig", context, _CMD_CREATE, None, None, 0)
    except OSError as error:
        raise _told(context, error, "making the file system") from error


def attach(context: int, target: str | Path, attributes: mount.Attribute) -> None:
    """Mount the created file system at `target`. Raises OSError."""
    tree = libc.syscall(libc.SYS_FSMOUNT, "fsmount", context, _FSMOUNT_CLOEXEC, int(attributes))
    try:
        mount.attach_tree(tree, target)
    finally:
        os.close(tree)


def _told(context: int, error: OSError, stage: str) -> OSError:
    """The same errno with the messages that the kernel left in the context (one a read, "e text")."""
    words = []
    with contextlib.suppress(OSError):
        while message := os.read(context, 1024):
            words.append(message.decode("utf-8", "replace").strip()[2:])
    detail = f": {'; '.join(words)}" if words else ""
    return OSError(error.errno, f"{stage}: {os.strerror(error.errno or 0)}{detail}")


class _Directories:
    """Gives a path a short name where it would not fit, and keeps what is needed for it open."""

    def __init__(self, stack: contextlib.ExitStack, limit: int) -> None:
        self._stack = stack
        self._limit = limit

    def name(self, path: str, *, shorten: bool = False) -> str:
        encoded = os.fsencode(path)
        if not shorten and len(encoded) <= self._limit and not set(encoded) & set(b"\\:,"):
            return path
        descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._stack.callback(os.close, descriptor)
        return f"/proc/self/fd/{descriptor}"


def mount_overlay(
    target: str | Path,
    lower: Sequence[str],
    *,
    upper: str = "",
    work: str = "",
    options: Sequence[str] = (),
) -> None:
    """Stack `lower` (the top layer first), with `upper` writable above if given, at `target`.

    `options` are overlay options ("index=off", "metacopy=on") or "ro", "nosuid", "nodev", "noexec".
    Any number of layers up to `MAX_LAYERS` on Linux 6.8 and later, about 200 before. Raises OSError,
    Unsupported for more layers than the kernel stacks.
    """
    if len(lower) > MAX_LAYERS:
        raise Unsupported(
            f"overlay of {len(lower)} layers at {target}: the kernel stacks {MAX_LAYERS} at most"
        )
    if probe.has_lowerdir_plus():
        _overlay_by_layer(target, lower, upper, work, options)
    else:
        overlay_by_options(target, lower, upper=upper, work=work, options=options)


_ATTRIBUTES = {
    "ro": mount.Attribute.RDONLY,
    "nosuid": mount.Attribute.NOSUID,
    "nodev": mount.Attribute.NODEV,
    "noexec": mount.Attribute.NOEXEC,
}
_FLAGS = {
    "ro": mount.Flag.RDONLY,
    "nosuid": mount.Flag.NOSUID,
    "nodev": mount.Flag.NODEV,
    "noexec": mount.Flag.NOEXEC,
}


def _overlay_by_layer(
    target: str | Path, lower: Sequence[str], upper: str, work: str, options: Sequence[str]
) -> None:
    attributes = mount.Attribute(0)
    with contextlib.ExitStack() as stack:
        directories = _Directories(stack, _STRING_LIMIT)
        context = stack.enter_context(file_system("overlay"))
        configure(context, "source", "overlay")
        for layer in lower:
            configure(context, "lowerdir+", directories.name(layer))
        if upper:
            configure(context, "upperdir", directories.name(upper))
            configure(context, "workdir", directories.name(work))
        for option in options:
            if option in _ATTRIBUTES:
                attributes |= _ATTRIBUTES[option]
                continue
            key, found, value = option.partition("=")
            configure(context, key, value if found else None)
        create(context)
        attach(context, target, attributes)


def overlay_by_options(
    target: str | Path,
    lower: Sequence[str],
    *,
    upper: str = "",
    work: str = "",
    options: Sequence[str] = (),
) -> None:
    """`mount_overlay` by mount(2), for kernels without `lowerdir+`."""
    flags = mount.Flag(0)
    with contextlib.ExitStack() as stack:
        directories = _Directories(stack, _STRING_LIMIT)
        roomy = sum(len(os.fsencode(layer)) + 1 for layer in lower) > 2048
        data = ["lowerdir=" + ":".join(directories.name(layer, shorten=roomy) for layer in lower)]
        if upper:
            data += [f"upperdir={directories.name(upper)}", f"workdir={directories.name(work)}"]
        for option in options:
            if option in _FLAGS:
                flags |= _FLAGS[option]
            elif option.startswith("context="):  # a level has commas, which separate options here
                data.append(f'context="{option.removeprefix("context=")}"')
            else:
                data.append(option)
        mount.mount("overlay", target, "overlay", flags, ",".join(data))


def offer_erofs(index: str | Path, *, device: str | Path) -> None:
    """Let the kernel open what `mount_erofs` would mount, and close it again. Raises OSError as that does."""
    with file_system("erofs") as context:
        configure(context, "source", os.fspath(index))
        configure(context, "device", os.fspath(device))
        create(context)


def mount_erofs(target: str | Path, index: str | Path, *, device: str | Path | None = None) -> None:
    """Mount the EROFS image `index`, read-only, with the file `device` as its second device.

    Raises OSError: ENOTBLK on kernels before 6.12, EUCLEAN (EFSCORRUPTED) for a damaged image.
    """
    data = "" if device is None else f"device={device}"
    if "," in data:
        raise ValueError(f"device path with a comma: {device}")
    mount.mount(index, target, "erofs", mount.Flag.RDONLY, data)
