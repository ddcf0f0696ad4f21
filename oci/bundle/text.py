"""Checks of texts that end in execve(2), mount(2) or a path; every refusal names the request's field."""

from __future__ import annotations

import posixpath
import re

from oci.errors import BadInput

LONGEST_STRING = 128 * 1024 - 1  # MAX_ARG_STRLEN of the kernel, less the final NUL
LONGEST_PATH = 4095  # PATH_MAX, less the final NUL
_DESCRIPTOR_PATH = re.compile(
    r"(/proc/[^/]+/(task/[^/]+/)?(fd|fdinfo|cwd|root|exe|map_files|ns)|/dev/fd)(/|\Z)"
)


def one_string(field: str, value: str) -> str:
    """A text that can be one argument or environment string: no NUL, not over 128 KiB (E2BIG)."""
    if "\0" in value:
        raise BadInput(f"{field}: contains a NUL character")
    if len(value) > LONGEST_STRING or len(value.encode("utf-8", "surrogateescape")) > LONGEST_STRING:
        raise BadInput(f"{field}: longer than {LONGEST_STRING} bytes, which execve refuses (E2BIG)")
    return value


def absolute_path(field: str, value: str) -> str:
    """A normalised absolute path: `.`, `..` and doubled slashes are resolved in the text alone."""
    if not value.startswith("/"):
        raise BadInput(f"{field}: {value[:200]!r} is not an absolute path")
    if "\0" in value or "\n" in value or "\r" in value:
        raise BadInput(f"{field}: contains NUL or a line break")
    if len(value.encode("utf-8", "surrogateescape")) > LONGEST_PATH:
        raise BadInput(f"{field}: longer than {LONGEST_PATH} bytes")
    normal = posixpath.normpath(value)
    return normal[1:] if normal.startswith("//") else normal


def names_descriptor(path: str) -> bool:
    """Whether a path goes through a process's descriptors or links of /proc.

    Such a path, resolved by the runtime before it has changed its root, can lead to the host's directories
    (the class of CVE-2024-21626).
    """
    return _DESCRIPTOR_PATH.match(path) is not None


def json_text(value: str) -> tuple[str, bool]:
    """`value` as JSON can carry it, and whether that lost bytes that are not UTF-8.

    Each such byte (a surrogate escape here) becomes U+FFFD, as the runtimes' own parsers would make it.
    """
    clean = "".join("\ufffd" if 0xD800 <= ord(c) <= 0xDFFF else c for c in value)
    return clean, clean != value
