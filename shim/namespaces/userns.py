"""A user namespace with the other namespaces that it owns, held by a short-lived helper until they are kept.

unshare(CLONE_NEWUSER) fails in a process with threads, so util-linux's unshare(1) does it and becomes cat(1):
the first byte that comes back says that the namespaces exist, and the end of its input, which the death of
the daemon brings too, ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from oci.errors import BadInput, Deadline, Internal
from oci.workload import IdMapping, UserNamespace
from shim import process
from shim.kernel.namespace import Kind
from shim.namespaces.sysctls import Sysctl

_LIMIT = 10.0
_OPTIONS = {Kind.NETWORK: "--net", Kind.IPC: "--ipc", Kind.UTS: "--uts"}


def map_lines(mappings: Sequence[IdMapping]) -> bytes:
    """The text of a uid_map or gid_map file (user_namespaces(7))."""
    return "".join(f"{m.container_id} {m.host_id} {m.length}\n" for m in mappings).encode("ascii")


@contextlib.asynccontextmanager
async def held(user: UserNamespace, kinds: Sequence[Kind]) -> AsyncIterator[int]:
    """The pid of a process in a new user namespace and in new namespaces of `kinds` owned by it.

    Raises BadInput for a map that the kernel refuses, Internal, Deadline.
    """
    here, there = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    descriptors = [*here, *there]
    try:
        child = await process.spawn(
            ["unshare", "--user", *(_OPTIONS[kind] for kind in kinds), "--", "cat"],
            stdin=here[0],
            stdout=there[1],
        )
        for descriptor in (here[0], there[1]):
            os.close(descriptor)
            descriptors.remove(descriptor)
        try:
            with contextlib.suppress(BrokenPipeError):  # it ended at once: `_answer` says so
                os.write(here[1], b"\n")
            await _answer(child, there[0])
            for name, mappings in (("uid_map", user.uids), ("gid_map", user.gids)):
                _write_map(child.pid, name, mappings)
            yield child.pid
        finally:
            await child.end(grace=0)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


async def _answer(child: process.Child, descriptor: int) -> None:
    """Wait for the helper's byte; end of file means that it could not make the namespaces."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    os.set_blocking(descriptor, False)
    loop.add_reader(descriptor, ready.set)
    try:
        async with asyncio.timeout(_LIMIT):
            await ready.wait()
    except TimeoutError:
        raise Deadline(f"making a user namespace: unshare did not answer within {_LIMIT:g} s") from None
    finally:
        loop.remove_reader(descriptor)
    if not os.read(descriptor, 1):
        status = await child.wait()
        raise Internal(
            f"making a user namespace: unshare ended with status {status} "
            "(user.max_user_namespaces reached, or user namespaces are disabled)"
        )


async def write_sysctl(helper: int, setting: Sysctl) -> None:
    """Write a sysctl of an ipc namespace that belongs to the helper's user namespace.

    The kernel lets only that namespace's own root do it (ipc/ipc_sysctl.c, ipc_permissions), which the
    daemon's root is not. Raises BadInput for a value that is refused or a sysctl that is not there.
    """
    file = f"/proc/sys/{setting.path}"
    enter = ["nsenter", "--target", str(helper), "--user", "--ipc", "--setuid", "0", "--setgid", "0"]
    try:
        await process.run(
            [*enter, "--", "dd", "status=none", "conv=notrunc,nocreat", f"of={file}"],
            stdin=setting.value.encode(),
            timeout=_LIMIT,
        )
    except process.CommandFailed as error:
        raise BadInput(f"config.linux.sysctls[{setting.path.replace('/', '.')}]: {error.message}") from error


def _write_map(pid: int, name: str, mappings: Sequence[IdMapping]) -> None:
    field = "config.linux.security_context.namespace_options.userns_options"
    try:
        Path(f"/proc/{pid}/{name}").write_bytes(map_lines(mappings))
    except OSError as error:
        text = map_lines(mappings).decode("ascii").strip()
        raise BadInput(
            f"{field}: the kernel refuses the {name} {text!r}: {os.strerror(error.errno or 0)} "
            "(overlapping ranges, or ids that the daemon's own user namespace does not have)"
        ) from error
