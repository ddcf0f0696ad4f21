"""Making a pod's namespaces and keeping them by bind mounts, with no process left behind.

Network namespaces are kept under /run/netns, where CNI plugins and node agents look for them; the others
under the run directory, in a mount that is private, so that the pins do not spread into every mount namespace
of the node. Each pod has a directory there, named after its id, made before anything else and removed last:
after a crash it says what to look for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from oci import ids
from oci.errors import CrispError, Internal, Unsupported
from oci.workload import NamespaceMode, NamespaceOptions, PodId
from shim.files import make_private_directory
from shim.kernel import link, mount, mountinfo, namespace
from shim.kernel.namespace import Kind
from shim.namespaces import sysctls as sysctl
from shim.namespaces import userns
from shim.records import PinnedNamespaces
from shim.threads import in_thread

NETNS_DIRECTORY: Final = Path("/run/netns")
PREFIX: Final = "crisp-"
_NETWORK_MARK: Final = "network"


class Namespaces:
    """The namespaces of the pods of one daemon, kept in `run_dir`/ns and `netns_dir`."""

    def __init__(self, run_dir: Path, *, netns_dir: Path = NETNS_DIRECTORY) -> None:
        self._directory = run_dir / "ns"
        self._netns = netns_dir

    def prepare(self) -> None:
        """Make the two directories mounts of the right kind; once at start, repeatable. Blocking.

        The network one becomes a shared mount on itself exactly as iproute2 makes it: if `ip netns add` did
        that later, it would hide the pins made before, and their namespaces could never be released.
        Raises Internal.
        """
        try:
            make_private_directory(self._directory)
            _own_mount(self._directory, mount.Flag.PRIVATE)
            self._netns.mkdir(mode=0o755, parents=True, exist_ok=True)
            _own_mount(self._netns, mount.Flag.SHARED)
        except OSError as error:
            raise Internal(
                f"preparing the directories of namespaces ({error.filename}): {_words(error)} "
                "(CAP_SYS_ADMIN is needed)"
            ) from error

    def retire(self) -> None:
        """Undo `prepare` for a daemon that keeps no pod; with pods left nothing happens. Blocking."""
        with contextlib.suppress(FileNotFoundError):
            if any(self._directory.iterdir()):
                return
            mount.unmount_all(self._directory)

    def plan(self, pod_id: PodId, options: NamespaceOptions) -> PinnedNamespaces:
        """Where the pod's namespaces will be kept; nothing is made yet. The uts namespace follows network."""
        own = self._directory / pod_id
        network = options.network is not NamespaceMode.NODE
        ipc = options.ipc is not NamespaceMode.NODE
        return PinnedNamespaces(
            network=str(self._netns / f"{PREFIX}{pod_id}") if network else "",
            uts=str(own / "uts") if network else "",
            ipc=str(own / "ipc") if ipc else "",
            user=str(own / "user") if options.user is not None else "",
        )

    async def pin(
        self,
        plan: PinnedNamespaces,
        options: NamespaceOptions,
        *,
        hostname: str,
        sysctls: Mapping[str, str],
    ) -> None:
        """Make the planned namespaces: loopback up, host name and sysctls set before any process runs.

        Sysctls of an interface that does not exist yet (eth0) are left to `configure_interfaces`. On failure
        some may exist: call `unpin`. Raises BadInput for a sysctl or an id map, Unsupported, Internal.
        """
        wanted: dict[Kind, Path] = {
            kind: Path(path) for kind, path in _paths(plan).items() if kind is not Kind.USER
        }
        settings = sysctl.plan(sysctls, frozenset(wanted))
        now = tuple(setting for setting in settings if not setting.interface)
        if options.user is None:
            await namespace.aside(lambda: self._make(plan, wanted, hostname, now, helper=None))
            return
        by_owner = tuple(setting for setting in now if setting.kind is Kind.IPC)
        rest = tuple(setting for setting in now if setting.kind is not Kind.IPC)
        async with userns.held(options.user, tuple(wanted)) as helper:
            await namespace.aside(lambda: self._make(plan, wanted, hostname, rest, helper=helper))
            for setting in by_owner:
                await userns.write_sysctl(helper, setting)

    def _make(
        self,
        plan: PinnedNamespaces,
        wanted: Mapping[Kind, Path],
        hostname: str,
        settings: tuple[sysctl.Sysctl, ...],
        *,
        helper: int | None,
    ) -> None:
        """In a thread of its own: the pod's directory, the namespaces, what is set in them, the pins."""
        stage = "pod directory"
        try:
            self._mark(plan)
            if helper is None and wanted:
                stage = "unshare " + ", ".join(kind.file for kind in wanted)
                namespace.unshare(*wanted)
            for kind in wanted if helper is not None else ():
                stage = f"entering the {kind.file} namespace of process {helper}"
                namespace.enter(f"/proc/{helper}/ns/{kind.file}", kind)
            for kind, path in wanted.items():
                stage = f"pin {path}"
                namespace.keep_own(kind, path)
            if helper is not None:
                stage = f"pin {plan.user}"
                namespace.keep(f"/proc/{helper}/ns/user", plan.user)
            if Kind.UTS in wanted and hostname:
                stage = f"host name {hostname!r}"
                socket.sethostname(hostname)
            if Kind.NETWORK in wanted:
                stage = "loopback"
                link.bring_up("lo")
        except OSError as error:
            raise _failure(stage, error) from error
        for setting in settings:
            sysctl.write(setting)

    def _mark(self, plan: PinnedNamespaces) -> None:
        own = self._own_directory(plan)
        if own is None:
            return
        own.mkdir(mode=0o700, exist_ok=True)
        if plan.network:
            with contextlib.suppress(FileExistsError):
                (own / _NETWORK_MARK).symlink_to(plan.network)

    def _own_directory(self, pins: PinnedNamespaces) -> Path | None:
        for path in (pins.ipc, pins.uts, pins.user):
            if path:
                return Path(path).parent
        if pins.network:
            return self._directory / Path(pins.network).name.removeprefix(PREFIX)
        return None

    async def configure_interfaces(self, pins: PinnedNamespaces, sysctls: Mapping[str, str]) -> None:
        """Write the sysctls that name an interface, once it is attached. Raises BadInput, Internal."""
        if not pins.network:
            return
        own = frozenset(_paths(pins))
        late = tuple(setting for setting in sysctl.plan(sysctls, own) if setting.interface)
        if not late:
            return

        def configure() -> None:
            for setting in late:
                sysctl.write(setting)

        await namespace.within_network(pins.network, configure)

    async def unpin(self, pinned: PinnedNamespaces) -> None:
        """Release the namespaces and remove their names; absent is success. Raises Internal."""
        await in_thread(self._release, pinned)

    def _release(self, pinned: PinnedNamespaces) -> None:
        path = ""
        try:
            for path in (pinned.network, pinned.ipc, pinned.uts, pinned.user):
                if path:
                    namespace.release(path)
            own = self._own_directory(pinned)
            if own is not None and own.parent == self._directory:
                path = str(own)
                (own / _NETWORK_MARK).unlink(missing_ok=True)
                with contextlib.suppress(FileNotFoundError):
                    own.rmdir()
        except OSError as error:
            raise Internal(f"releasing the namespace {path}: {_words(error)}") from error

    def intact(self, pinned: PinnedNamespaces) -> bool:
        """Whether every pinned path still is a namespace: false after a reboot or a foreign unmount."""
        return all(namespace.is_namespace(path) for path in _paths(pinned).values())

    def sweep(self) -> dict[PodId, PinnedNamespaces]:
        """What is pinned on the machine, by pod, whatever any record says. Blocking."""
        found = {}
        try:
            directories = sorted(self._directory.iterdir())
        except FileNotFoundError:
            return {}
        for own in directories:
            if not ids.is_full(own.name):
                continue
            names = {entry.name for entry in own.iterdir()}
            network = str((own / _NETWORK_MARK).readlink()) if _NETWORK_MARK in names else ""
            pins = {name: str(own / name) for name in ("ipc", "uts", "user") if name in names}
            found[PodId(own.name)] = PinnedNamespaces(network=network, **pins)
        return found


def _own_mount(directory: Path, propagation: mount.Flag) -> None:
    if not mountinfo.is_mount_point(directory.resolve()):
        mount.bind(directory, directory, recursive=True)
    mount.set_propagation(directory, propagation)


def _paths(pins: PinnedNamespaces) -> dict[Kind, str]:
    """The pinned paths by kind; network comes first."""
    paths = {Kind.NETWORK: pins.network, Kind.IPC: pins.ipc, Kind.UTS: pins.uts, Kind.USER: pins.user}
    return {kind: path for kind, path in paths.items() if path}


def _failure(stage: str, error: OSError) -> CrispError:
    words = f"namespaces: {stage}: {_words(error)}"
    if error.errno == errno.ENOSPC:
        return Internal(f"{words} (a limit in /proc/sys/user is reached)")
    if error.errno == errno.EPERM:
        return Unsupported(f"{words} (the daemon lacks CAP_SYS_ADMIN)")
    return Internal(words)


def _words(error: OSError) -> str:
    number = error.errno or 0
    return f"{os.strerror(number)} ({errno.errorcode.get(number, number)})"
