"""The composition root: which object talks to which. Everything else receives its collaborators.

`assemble` makes the parts, `Assembly.recover` brings records and machine together, `Assembly.close` takes the
parts down again; containers stay.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from config.containers import ContainerSettings
from config.loading import LoadedSettings
from config.models import Settings
from oci.bundle.inputs import BundleDefaults
from oci.cgroup import slice_path
from oci.errors import CrispError
from oci.facts import CgroupDriver, HostFacts
from shim import apparmor, cgroups
from shim.cdi import Cdi
from shim.collector import Collector
from shim.containers.exits import Exits
from shim.containers.stop import Stops
from shim.containers.verbs import Containers
from shim.defaults import bundle_defaults
from shim.facts import host as host_facts
from shim.facts.sources import read_seccomp_profile
from shim.hooks import Hooks
from shim.images import shifting
from shim.images.preload import Preload
from shim.images.registry_files import places_of
from shim.images.settings import Limits, StoreSettings, Transfer, TrustSettings
from shim.images.store import ImageStore
from shim.janitor import Janitor
from shim.kernel.flock import Lock
from shim.lifecycle.operations import Operations
from shim.logger.keeper import LogKeeper
from shim.namespaces.pin import Namespaces
from shim.namespaces.sysctls import default_sysctls
from shim.network.network import Builtin, Network
from shim.network.network import Limits as NetworkLimits
from shim.node import Node
from shim.paths import Paths
from shim.podleaves import PodLeaves
from shim.pods.verbs import Pods
from shim.preparation import prepare, retire
from shim.recovery import recover
from shim.reload import Reloads
from shim.runtimes.driver import ExitListener
from shim.runtimes.handlers import Handlers
from shim.runtimes.kinds import DriverContext, Kind, Machine, with_plugins
from shim.runtimes.ocikind import OciKind
from shim.runtimes.probe import PROBE_TIMEOUT, candidate_of, probe, probe_handlers
from shim.runtimes.programs import search_path
from shim.runtimes.shimkind import ShimKind
from shim.state.store import Store

log = logging.getLogger(__name__)

UNDO_GRACE = 5.0
"""Seconds that a cancelled operation may take to undo itself at shutdown before the rest goes on."""


@dataclass(slots=True, kw_only=True)
class Assembly:
    """The parts of one daemon, ready to recover and serve."""

    lock: Lock
    node: Node
    handlers: Handlers
    reloads: Reloads
    logs: LogKeeper
    network: Network
    namespaces: Namespaces
    images: ImageStore
    preload: Preload
    exits: Exits
    janitor: Janitor
    pods: Pods
    containers: Containers
    leaves: PodLeaves | None  # where kubelet's cAdvisor is answered

    async def recover(self) -> None:
        """Make records and machine one, then begin to pay what is owed."""
        self.images.start_threads()
        actions = await recover(self.node, self.exits.listener)
        for finding in self.node.store.findings:
            log.warning("state store", extra={"finding": finding})
        log.info("recovered", extra={"pods": len(self.node.store.pods), "actions": len(actions)})
        self.janitor.start()
        self.reloads.start()
        self.preload.start()
        if self.leaves is not None:
            self.leaves.start()

    async def close(self) -> None:
        """Finish or undo what runs, stop watching, write what is queued. Containers stay."""
        settings = self.node.settings
        await self.reloads.close()
        if self.leaves is not None:
            await self.leaves.close()
        await self.janitor.close()
        await self.node.operations.close(grace=float(settings.shutdown_timeout))
        await self.exits.close()
        await self.handlers.close()
        await self.preload.close()
        await self.logs.close()
        await self.network.close()
        await self.images.close()
        empty = not self.node.store.pods and not self.node.store.containers
        await self.node.store.close()
        if empty:
            await self._retire()
        self.lock.release()

    async def _retire(self) -> None:
        """With no pod left nothing of the daemon stays on the machine but its directories."""
        try:
            await self.network.retire()
            await asyncio.to_thread(self.namespaces.retire)
            await asyncio.to_thread(retire, self.node.paths)
        except CrispError as error:
            log.warning("something stays on the machine", extra={"error": str(error)})


async def assemble(
    loaded: LoadedSettings,
    *,
    load: Callable[[], LoadedSettings] | None = None,
    on_commit: Callable[[int], None] | None = None,
    around: Callable[[Node], Node] = lambda node: node,
) -> Assembly:
    """Make every part from the settings. Raises Busy when another daemon holds the state directory.

    `load` reads the settings again, for handlers that change while the daemon runs; without it they stay.

    For fault tests: `on_commit` is called after each commit of the state store, in its thread; `around` may
    put other collaborators into the place of those that the life cycle is given.
    """
    settings = loaded.settings
    paths = Paths(state_dir=settings.state_dir, run_dir=settings.run_dir, image_dir=settings.images.directory)
    lock = await asyncio.to_thread(prepare, paths)
    try:
        host = await asyncio.to_thread(host_facts.gather, driver=_cgroup_driver(settings))
        systemd = host.cgroup.driver is CgroupDriver.SYSTEMD
        logs = _logs(settings, paths, systemd=systemd)
        kinds = await asyncio.to_thread(with_plugins, _kinds(logs))
        machine = Machine(kernel=host.kernel, path=search_path(os.environ), limit=PROBE_TIMEOUT)
        table = await probe_handlers(loaded, kinds=kinds, machine=machine)
        store = await Store.open(paths.state_dir, on_commit=on_commit)
    except BaseException:
        lock.release()
        raise
    namespaces = Namespaces(paths.run_dir)
    await asyncio.to_thread(namespaces.prepare)
    network = _network(settings)
    await network.start()
    images = ImageStore(paths.images, records=store, settings=_store_settings(settings))
    late = _LateListener()
    context = _context(settings, paths, late, systemd=systemd)
    handlers = Handlers(
        table,
        make=lambda handler: kinds[handler.kind].driver(handler, context),
        probe=lambda name, definition: probe(candidate_of(name, definition), kinds, machine),
    )
    node = Node(
        settings=settings,
        paths=paths,
        host=host,
        boot_id=await asyncio.to_thread(_boot_id),
        defaults=await _defaults(settings.containers, host),
        store=store,
        operations=Operations(),
        handlers=handlers,
        network=network,
        namespaces=namespaces,
        images=images,
        cdi=Cdi(settings.containers.cdi_spec_dirs),
        hooks=Hooks(settings.containers.hooks_dirs),
        now=time.time_ns,
        new_id=lambda: secrets.token_hex(32),
        no_user_namespaces=await shifting.why_not(paths.images),
    )
    node = around(node)
    exits, stops = Exits(node), Stops()
    late.listener = exits.listener
    collector = Collector(node)
    return Assembly(
        lock=lock,
        node=node,
        handlers=handlers,
        reloads=Reloads(node, handlers, loaded, load=load or (lambda: loaded), kinds=kinds, machine=machine),
        logs=logs,
        network=network,
        namespaces=namespaces,
        images=images,
        preload=Preload(images, settings.images.preload_dirs, memory=paths.preloaded),
        exits=exits,
        janitor=Janitor(node, exits, stops),
        pods=Pods(node, exits, stops, collector),
        containers=Containers(node, exits, stops, collector),
        leaves=PodLeaves(node, cgroups.Cgroups(cgroups.find_hierarchies()))
        if settings.kubelet.cadvisor_socket
        else None,
    )


async def _defaults(settings: ContainerSettings, host: HostFacts) -> BundleDefaults:
    """What containers get by default; profiles that settings name are read or loaded. Raises BadInput."""
    default_sysctls(settings.default_sysctls)
    path, profile = settings.seccomp_profile, None
    if path is not None:
        field = "containers.seccomp_profile"
        profile = await asyncio.to_thread(read_seccomp_profile, str(path), field=field)
    loaded = await apparmor.prepare(host, settings.apparmor_profile)
    return bundle_defaults(settings, seccomp_profile=profile, apparmor_profile=loaded)


class _LateListener:
    """Drivers are made before `Exits`, which needs the node, which needs the drivers."""

    listener: ExitListener

    def __call__(self, *event: object) -> None:
        self.listener(*event)  # type: ignore[arg-type]


def _kinds(logs: LogKeeper) -> dict[str, Kind]:
    """Crisp's own kinds of handlers."""
    return {"oci": OciKind(), "shim": ShimKind(logs)}


def _context(settings: Settings, paths: Paths, exits: ExitListener, *, systemd: bool) -> DriverContext:
    return DriverContext(
        run_dir=paths.run_dir,
        exits=exits,
        hierarchies=cgroups.find_hierarchies(),
        systemd=systemd,
        monitors=_monitors(settings, systemd=systemd),
        timeout=float(settings.containers.runtime_timeout),
        kill_time=float(settings.containers.kill_timeout),
        exec_drain=float(settings.containers.exec_drain_timeout),
    )


def _logs(settings: Settings, paths: Paths, *, systemd: bool) -> LogKeeper:
    return LogKeeper(
        directory=paths.run_dir / "logger",
        cgroups=cgroups.Cgroups(cgroups.find_hierarchies()),
        cgroup=_monitors(settings, systemd=systemd),
    )


def _monitors(settings: Settings, *, systemd: bool) -> str:
    """The cgroup of all conmons, as a path below each hierarchy."""
    chosen = settings.cgroup.monitors
    if systemd:
        return slice_path(chosen or f"{settings.cgroup.prefix}-monitors.slice")
    return chosen or f"/{settings.cgroup.prefix}-monitors"


def _network(settings: Settings) -> Network:
    chosen = settings.network
    builtin = Builtin(
        bridge=chosen.builtin_bridge,
        subnets=tuple(chosen.builtin_subnets),
        data_dir=settings.run_dir / "leases",
    )
    return Network(
        conf_dir=chosen.conf_dir,
        bin_dirs=tuple(chosen.bin_dirs),
        cache_dir=settings.cni_cache_dir,
        max_confs=chosen.max_confs,
        builtin=builtin if chosen.builtin else None,
        preference=chosen.ip_preference,
        limits=NetworkLimits(
            add=float(chosen.add_timeout),
            delete=float(chosen.del_timeout),
            status=float(chosen.status_timeout),
        ),
    )


def _cgroup_driver(settings: Settings) -> CgroupDriver | None:
    return None if settings.cgroup.driver == "auto" else CgroupDriver(settings.cgroup.driver)


def _store_settings(settings: Settings) -> StoreSettings:
    images = settings.images
    return StoreSettings(
        form=images.layer_form,
        registries=places_of(images),
        pinned=tuple(images.pinned),
        isolate_unpack=images.isolate_unpack,
        keep_compressed=images.keep_compressed,
        additional=tuple(images.additional_stores),
        writable=settings.state_dir if images.directory is not None else None,
        limits=Limits(
            manifest=int(images.max_manifest_size),
            layers=images.max_layers,
            ratio=images.max_layer_ratio,
            image=int(images.max_image_size),
        ),
        transfer=Transfer(
            retries=images.retries,
            connect_timeout=float(images.connect_timeout),
            stall_timeout=float(images.stall_timeout),
            minimum_rate=int(images.minimum_rate),
            parallel=images.max_parallel_downloads,
            total=float(images.pull_timeout),
        ),
        trust=TrustSettings(
            policy=images.trust.policy or Path("/etc/containers/policy.json"),
            required=images.trust.policy is not None,
            policy_dir=images.trust.policy_dir,
            registries_dir=images.trust.registries_dir,
            verifier_dir=images.trust.verifier_dir,
            max_verifiers=images.trust.max_verifiers,
            verifier_timeout=float(images.trust.verifier_timeout),
        ),
        environment={k: v for k, v in os.environ.items() if k.lower().endswith("_proxy")},
    )


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
