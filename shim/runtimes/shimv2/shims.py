"""Shim processes: starting one for a container or finding the pod's, finding it again, and its end.

Each shim has a directory in the run directory, named by the pod or the container that it serves: its working
directory, the `log` fifo, `shim.json` with the answer of its start, and each bundle that it was given, or a
link to it. The directory is made first and the bundles say who depends on it, so after a kill at any
instruction what stands there tells what to end. Knows no state of any container.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

from oci import commandline
from oci.errors import Absent, BadInput, Busy, CrispError, Deadline, Internal, RuntimeFailed
from shim import files, process
from shim.cgroups import Cgroups
from shim.lifecycle.locks import Locks
from shim.lifecycle.undo import to_the_end
from shim.logger.keeper import LogKeeper, Outlet
from shim.process import CommandMissing, CommandTimedOut
from shim.records import ProcessRef
from shim.runtimes import processtree
from shim.runtimes.driver import Target
from shim.runtimes.shimv2 import addresses, bootstrap, configuration, directories
from shim.runtimes.shimv2.bootstrap import Reply
from shim.runtimes.shimv2.families import Family, OptionsKind, Sharing
from shim.runtimes.shimv2.task import Ended, Task
from shim.runtimes.shimv2.ttrpc.client import Client
from shim.threads import in_executor

T = TypeVar("T")

log = logging.getLogger(__name__)

_ANSWER_TIME: Final = 10.0
"""Seconds that a shim may take to say which process it is."""
_SHUTDOWN_TIME: Final = 5.0
_KILL_TIME: Final = 5.0
_ANY_STATUS: Final = range(-128, 256)
_LINKS: Final = "bundles"
_LIKENESSES: Final = "dead"
_UNDELETED: Final = "undeleted"
_UID_MAP: Final = "uid_map"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShimSettings:
    """What one handler's shims are started with. `timeout` is seconds for one call."""

    handler: str
    program: Path
    version: str
    family: Family
    directory: Path  # of the shims' directories
    sockets: Path
    events: str  # where events are taken, "" for nowhere
    monitors: str  # cgroup
    options: Message | None
    timeout: float
    configure: Callable[[Mapping[str, Any]], str] | None = None  # the file that Create will name, by the spec
    namespaced: bool = False  # `start` reads a user namespace's uid_map: see `bootstrap.bearing_refusals`


class Unanswering(Busy):
    """A shim that takes connections and does not say which process it is."""


class Shim:
    """One living shim and the connection to it."""

    def __init__(self, key: str, reply: Reply, client: Client, task: Task) -> None:
        self.key = key
        self.reply = reply
        self.client = client
        self.task = task
        self.process: ProcessRef | None = None


class Shims:
    """The shims of one handler. `lost` is called on the loop when one that is in use went away."""

    def __init__(
        self,
        settings: ShimSettings,
        *,
        cgroups: Cgroups,
        keeper: LogKeeper,
        io: Executor,
        lost: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._cgroups = cgroups
        self._keeper = keeper
        self._io = io
        self._lost = lost
        self._shims: dict[str, Shim] = {}
        self._locks = Locks()

    def key(self, target: Target) -> str:
        """What the container's shim is named by."""
        if self._settings.family.sharing is Sharing.CONTAINER or not target.pod_id:
            return target.id
        return target.pod_id

    def bundle(self, target: Target, shim: Shim) -> Path:
        """What a container that was acquired for is created from."""
        apart = self._settings.family.apart
        return self._settings.directory / shim.key / _LINKS / target.id if apart else target.directory

    def configuration(self, shim: Shim) -> Path | None:
        """The file that was written for this shim's containers."""
        if self._settings.configure is None:
            return None
        return self._settings.directory / shim.key / configuration.NAME

    async def acquire(self, target: Target, spec: Mapping[str, Any]) -> Shim:
        """The shim for a container to be, started if there is none. `release` is owed from here on."""
        key = self.key(target)
        async with self._locks.exclusive(key):
            directory = self._settings.directory / key
            shim = await self._find_or_end(key)
            if shim is not None and not await self._alive(shim):
                await self._end(key)
                shim = None
            new = shim is None

            def prepare() -> None:  # at once: what is there without a link no `release` would find
                if new:
                    self._prepare(directory, spec)
                link = directory / _LINKS / target.id
                if self._settings.family.apart:
                    directories.make_bundle(link, target.directory, spec)
                else:
                    directories.link(link, target.directory)

            await self._blocking(prepare)
            if shim is None:
                shim = await self._start(key, directory)
        return shim

    async def find(self, target: Target) -> Shim | None:
        """The living shim of a container, connected again if need be; None when there is none.

        Raises Unanswering where it does not say which process it is: it hangs, and may go on later.
        """
        return await self._found(target, self._find)

    async def find_or_end(self, target: Target) -> Shim | None:
        """The same for who must get on: a shim that does not answer is killed, and then there is none."""
        return await self._found(target, self._find_or_end)

    async def answers(self, target: Target) -> bool:
        """Whether a container's shim, busy as it may be, still says which process it is."""
        shim = self._shims.get(self.key(target))
        if shim is None:
            return False
        try:
            await self._know(shim)
        except CrispError:
            return False
        return True

    async def leave(self, target: Target) -> None:
        """The shim does not delete a container: its program will, once the shim has ended."""
        key = await self._key_of(target)
        if key is not None:
            directory = self._settings.directory / key
            link, kept = directory / _LINKS / target.id, directory / _UNDELETED / target.id
            await self._blocking(lambda: directories.copy_files(link, kept))

    async def kill(self, target: Target) -> None:
        """Kill the container's shim, which may serve others too; what it leaves is `clean_up`'s."""
        key = await self._key_of(target)
        if key is not None:
            await self._kill(key)

    async def release(self, target: Target) -> bool:
        """Forget a container, and end the shim when nobody else depends on it; whether it was ended.

        With the shim end all that it did not delete.
        """
        key = await self._key_of(target)
        if key is None:
            return False
        async with self._locks.exclusive(key):
            directory = self._settings.directory / key
            link = directory / _LINKS / target.id
            others = await self._blocking(
                lambda: [name for name in directories.names(link.parent) if name != link.name]
            )
            if not others:
                await self._end(key)
            else:
                await self._blocking(lambda: files.remove_tree(link))
        return not others

    async def clean_up(self, target: Target) -> Ended | None:
        """Let the program's `delete` remove what a shim that is dead, or forgot it, left of a container.

        Its end, if known.
        """
        key = await self._key_of(target) or self.key(target)
        link = self._settings.directory / key / _LINKS / target.id
        if not await self._blocking((link / self._settings.family.remembers).exists):
            return None
        # `delete` unmounts the bundle's root file system too, which is not the shim's: it gets a likeness.
        likeness = self._settings.directory / key / _LIKENESSES / target.id
        try:
            await self._blocking(lambda: directories.copy_files(link, likeness))
            return await self._run_delete(target.id, likeness)
        finally:  # the shim may live on, for others
            await self._blocking(lambda: files.remove_tree(likeness))

    async def _run_delete(self, id_: str, bundle: Path) -> Ended | None:
        settings = self._settings
        argv = bootstrap.arguments(settings.program, id_, "delete", bundle=bundle, events=settings.events)
        result = await self._run(argv, "delete", id_, directory=bundle, stdin=None)
        if result.returncode != 0:
            raise self._failed("delete", id_, result.stdout + result.stderr, result.returncode)
        answer = bootstrap.parse_deleted(result.stdout)
        if answer is None:
            return None
        at = answer.exited_at.seconds * 10**9 + answer.exited_at.nanos
        return Ended(code=answer.exit_status, at=max(at, 0))

    def close(self) -> None:
        """Let go of the connections; shims stay."""
        for shim in self._shims.values():
            shim.client.close()
        self._shims.clear()

    # ---- the parts

    async def _key_of(self, target: Target) -> str | None:
        """Where a container is linked; for one whose record is lost all shims are looked through."""
        key = self.key(target)
        directory = self._settings.directory

        def look() -> str | None:
            if os.path.lexists(directory / key / _LINKS / target.id):  # a link may lead nowhere any more
                return key
            for found in directory.glob(f"*/{_LINKS}/{target.id}"):
                return found.parent.parent.name
            return None

        return await self._blocking(look)

    async def _found(
        self, target: Target, find: Callable[[str], Coroutine[Any, Any, Shim | None]]
    ) -> Shim | None:
        shim = self._shims.get(self.key(target))
        if shim is not None and not shim.client.closed:
            return shim
        key = await self._key_of(target)
        if key is None:
            return None
        async with self._locks.exclusive(key):
            return await find(key)

    async def _find_or_end(self, key: str) -> Shim | None:
        try:
            return await self._find(key)
        except Unanswering as error:
            # Taken for dead from here on, it must be: its program's `delete` removes what it serves.
            log.warning("a shim that does not answer is ended", extra={"shim": key, "error": str(error)})
            await self._kill(key)
            return None

    async def _find(self, key: str) -> Shim | None:
        shim = self._shims.get(key)
        if shim is not None and not shim.client.closed:
            return shim
        document = await self._blocking(
            lambda: directories.read_answer(self._settings.directory / key / "shim.json")
        )
        if document is None:
            return None
        reply = Reply(address=str(document["address"]), version=int(document["version"]))
        try:
            shim = await self._connect(key, reply)
        except (Absent, BadInput):
            return None
        try:
            await self._know(shim)
        except BaseException as error:
            shim.client.close()
            if isinstance(error, CrispError):
                raise Unanswering(error.message) from error
            raise
        await self._read_log(key)
        self._shims[key] = shim
        return shim

    async def _alive(self, shim: Shim) -> bool:
        return not shim.client.closed and (shim.process is None or process.alive(shim.process))

    async def _connect(self, key: str, reply: Reply) -> Shim:
        connection = await addresses.connect(addresses.parse_address(reply.address))
        client = Client(
            connection,
            name=f"handler {self._settings.handler}: shim of {key}",
            metadata={"containerd-namespace-ttrpc": bootstrap.NAMESPACE},
            lost=lambda: self._was_lost(key),
        )
        return Shim(key, reply, client, Task(client, version=reply.version, timeout=self._settings.timeout))

    async def _know(self, shim: Shim) -> None:
        """Which process it is. Raises Busy when it does not say within `_ANSWER_TIME`: it hangs."""
        try:
            async with asyncio.timeout(_ANSWER_TIME):
                pid = await shim.task.connect(shim.key)
                shim.process = process.reference(pid) if pid > 0 else None
        except Absent:
            return
        except TimeoutError:
            raise Busy(f"shim {shim.key} does not answer within {_ANSWER_TIME:g} s") from None

    def _was_lost(self, key: str) -> None:
        shim = self._shims.pop(key, None)
        if shim is not None:
            self._lost(key)

    def _prepare(self, directory: Path, spec: Mapping[str, Any]) -> None:
        files.make_private_directory(directory)
        files.make_private_directory(directory / _LINKS)
        files.make_private_directory(self._settings.sockets)
        document = json.dumps(spec, separators=(",", ":")).encode("ascii")
        files.write_atomic(directory / "config.json", document)
        if self._settings.configure is not None:
            files.write_atomic(directory / configuration.NAME, self._settings.configure(spec).encode())
        if self._settings.namespaced:
            files.write_atomic(directory / _UID_MAP, bootstrap.USER_NAMESPACE.encode())
        with contextlib.suppress(FileExistsError):
            os.mkfifo(directory / "log", 0o700)

    async def _read_log(self, key: str) -> None:
        path = self._settings.directory / key / "log"
        await self._keeper.add(Outlet(id=f"shim-{key}", stdout=str(path)))

    async def _start(self, key: str, directory: Path) -> Shim:
        try:
            await self._read_log(key)
            reply = await self._ask_to_start(key, directory)
            document = json.dumps({"address": reply.address, "version": reply.version}).encode()
            await self._blocking(lambda: files.write_atomic(directory / "shim.json", document))
            shim = await self._connect(key, reply)
            try:
                await self._know(shim)
                if shim.process is not None:
                    pid = shim.process.pid
                    await self._blocking(lambda: self._cgroups.make(self._settings.monitors))
                    await self._blocking(lambda: self._cgroups.place(self._settings.monitors, pid))
            except BaseException:
                shim.client.close()
                raise
        except BaseException as error:
            await to_the_end(self._abandon(key))
            if isinstance(error, BadInput | Absent):
                raise RuntimeFailed(
                    f"handler {self._settings.handler}: {error.message}", verb="create"
                ) from error
            raise
        self._shims[key] = shim
        return shim

    async def _ask_to_start(self, key: str, directory: Path) -> Reply:
        settings = self._settings
        argv = bootstrap.arguments(settings.program, key, "start", events=settings.events)
        if settings.namespaced:
            argv = bootstrap.bearing_refusals(argv, directory / _UID_MAP)
        params = bootstrap.params(
            key, socket_dir=settings.sockets, events=settings.events, options=settings.options
        )
        ours = settings.family.options is OptionsKind.RUNC  # others print the version of something else
        given = params if ours and bootstrap.wants_params(settings.version) else None
        result = await self._run(argv, "start", key, directory=directory, stdin=given)
        words = (result.stderr + result.stdout).decode("utf-8", "replace")
        if result.returncode != 0 and given is None and bootstrap.refused_as_deprecated(words):
            result = await self._run(argv, "start", key, directory=directory, stdin=params)
        if result.returncode != 0:
            raise self._failed("start", key, result.stderr + result.stdout, result.returncode)
        return bootstrap.parse_reply(result.stdout)

    async def _run(
        self, argv: list[str], verb: str, id_: str, *, directory: Path, stdin: bytes | None
    ) -> process.Result:
        settings = self._settings
        try:
            return await process.run(
                argv,
                env=bootstrap.environment(directory=directory, events=settings.events),
                timeout=settings.timeout,
                ok=_ANY_STATUS,
                stdin=stdin,
                cwd=directory,
            )
        except CommandMissing as error:
            raise RuntimeFailed(
                f"handler {settings.handler}: {verb} of shim {id_}: {error.message}", verb=verb
            ) from error
        except CommandTimedOut as error:
            raise Deadline(f"handler {settings.handler}: {verb} of shim {id_}: {error.message}") from error

    def _failed(self, verb: str, id_: str, words: bytes, status: int) -> RuntimeFailed:
        said = commandline.plain_words(words) or "it said nothing"
        how = f"killed by signal {-status}" if status < 0 else f"status {status}"
        name = self._settings.program.name
        return RuntimeFailed(
            f"handler {self._settings.handler}: {name} {verb} of {id_} ({how}): {said}", verb=verb
        )

    async def _abandon(self, key: str) -> None:
        try:
            await self._end(key)
        except CrispError as error:
            log.warning("what a failed start left is not removed", extra={"shim": key, "error": str(error)})

    async def _end(self, key: str) -> None:
        """Shut the shim down, kill it if it does not go, remove its directory and its socket."""
        shim = self._shims.pop(key, None)
        document = await self._blocking(
            lambda: directories.read_answer(self._settings.directory / key / "shim.json")
        )
        if shim is None and document is not None:
            with contextlib.suppress(CrispError):
                reply = Reply(address=str(document["address"]), version=int(document["version"]))
                shim = await self._connect(key, reply)
                try:
                    await self._know(shim)
                except CrispError:
                    shim.client.close()
                    shim = None
        undeleted = self._settings.directory / key / _UNDELETED
        left = await self._blocking(lambda: directories.names(undeleted))  # a shim that has one goes on
        gone = False
        if shim is not None:
            # the connection may go before the answer comes, or the shim hang
            if not left:
                with contextlib.suppress(CrispError, TimeoutError):
                    async with asyncio.timeout(_SHUTDOWN_TIME):
                        await shim.task.shutdown(key)
            shim.client.close()
            if shim.process is not None and not left:
                gone = await process.wait_gone(shim.process, _SHUTDOWN_TIME)
        if not gone:
            await self._kill(key)
        for name in left:
            await self._run_delete(name, undeleted / name)
        await self._keeper.remove(f"shim-{key}")
        await self._blocking(lambda: self._remove(key, document))

    async def _kill(self, key: str) -> None:
        await processtree.kill_all(lambda: self._processes(key), io=self._io, timeout=_KILL_TIME)

    def _processes(self, key: str) -> list[ProcessRef]:
        """What was started as this shim and lives, whether or not its start was answered."""
        wanted = [b"-id", key.encode(), b"-namespace", bootstrap.NAMESPACE.encode()]
        found = []
        for ref in processtree.with_argument(key):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{ref.pid}/cmdline").read_bytes().split(b"\0")
                if all(word in words for word in wanted) and b"delete" not in words:
                    found.append(ref)
        return found

    def _remove(self, key: str, document: Mapping[str, Any] | None) -> None:
        if document is not None:
            with contextlib.suppress(CrispError):
                addresses.remove_stale(addresses.parse_address(str(document["address"])))
        directory = self._settings.directory / key
        try:
            files.remove_tree(directory)
        except OSError as error:
            raise Internal(f"shim {key}: removing {error.filename}: {error.strerror}") from error

    async def _blocking(self, work: Callable[[], T]) -> T:
        return await in_executor(self._io, work)
