"""Pod networks: attach, detach, check, collect, and whether a pod could be attached now.

Owns the choice of networks (the configuration directory, watched; else the built-in one) and the order of
effects: what DEL will need is on disk before ADD runs. Knows nothing of the life cycle: whoever calls
`attach` has recorded that a `detach` is owed, and calls it also when `attach` fails or is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from oci.cni import NetworkRequest, NetworkResult, builtin, invocation, result
from oci.cni.configuration import Network as Configuration
from oci.errors import BadInput, Busy, CrispError, Full, Internal
from oci.workload import PodId
from shim.kernel import link
from shim.kernel.inotify import DirectoryWatch
from shim.kernel.namespace import is_namespace
from shim.network import configurations
from shim.network.attachments import Attachment, Attachments
from shim.network.configurations import Loaded
from shim.network.masquerade import Masquerade
from shim.network.plugins import Call, Plugins
from shim.threads import in_thread

log = logging.getLogger(__name__)

_REASON = "NetworkPluginNotReady"


@dataclass(frozen=True, slots=True, kw_only=True)
class Builtin:
    """The network of our own for a node without a configuration; `data_dir` is lost with a reboot."""

    bridge: str
    subnets: tuple[str, ...]
    data_dir: Path

    def compose(self, *, port_mappings: bool) -> Configuration:
        return builtin.compose(
            bridge=self.bridge,
            subnets=self.subnets,
            data_dir=str(self.data_dir),
            port_mappings=port_mappings,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Seconds for a pod's ADDs, a pod's DELs, and one STATUS or GC."""

    add: float = 90.0
    delete: float = 60.0
    status: float = 5.0


class Network:
    """The pod networks of one daemon. `start` before use, `close` at the end; attachments stay."""

    def __init__(
        self,
        *,
        conf_dir: Path,
        bin_dirs: tuple[Path, ...],
        cache_dir: Path,
        max_confs: int = 1,
        builtin: Builtin | None = None,
        preference: result.Preference = "ipv4",
        limits: Limits = Limits(),
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._conf_dir = conf_dir
        self._plugins = Plugins(bin_dirs)
        self._attachments = Attachments(cache_dir)
        self._max_confs = max_confs
        self._builtin = builtin
        self._masquerade = None if builtin is None else Masquerade(builtin.bridge, builtin.subnets)
        self._preference: result.Preference = preference
        self._limits = limits
        self._changed = changed
        self._loaded = Loaded()
        self._refusal = ""
        self._watch: DirectoryWatch | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._again = False
        self._asked = 0.0

    async def start(self) -> None:
        """Read the configuration, ask STATUS where there is such a verb, and watch for changes.

        Where the kernel grants no watch, the directory is read again whenever something asks.
        """
        await asyncio.to_thread(self._attachments.prepare)
        try:
            self._watch = DirectoryWatch(self._conf_dir, self._refresh_soon)
        except Full as error:
            log.warning("CNI configurations are not watched", extra={"error": error.message})
        await self._refresh()

    async def close(self) -> None:
        """Stop watching. Attachments stay."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)
            self._refreshing = None

    def condition(self) -> tuple[bool, str, str]:
        """NetworkReady as (ready, reason, message); reason and message are empty when ready.

        Answers at once from what is known. Where a plugin has STATUS, or nothing watches the directory, an
        answer that is older than `limits.status` seconds is asked for anew, for the next call.
        """
        if self._stale():
            self._refresh_soon()
        networks = self._networks(port_mappings=True)
        problems = "; ".join(self._loaded.problems)
        if not networks:
            message = f"no CNI configuration in {self._conf_dir}"
            return False, _REASON, f"{message}: {problems}" if problems else message
        for network in networks:
            if missing := self._plugins.missing(network):
                return False, _REASON, missing
        if self._refusal:
            return False, _REASON, self._refusal
        return True, "", ""

    def names(self) -> tuple[str, ...]:
        """The networks that a pod would be attached to now, in order."""
        return tuple(network.name for network in self._networks(port_mappings=False))

    async def attach(self, request: NetworkRequest) -> NetworkResult:
        """Attach a pod to every network in turn: eth0, eth1, and so on.

        Raises BadInput (a value that CNI cannot carry), Busy (no configuration, or a plugin that says so),
        PluginFailed, Deadline, Internal. Whatever happens, `detach` undoes it.
        """
        args = invocation.arguments(request)
        capabilities = invocation.capability_values(request)
        if not self._watched():
            await self._refresh()
        networks = self._networks(port_mappings="portMappings" in capabilities)
        if not networks:
            _, _, message = self.condition()
            raise Busy(f"attaching pod {request.pod_id} to its network: {message}")
        attached = tuple(
            Attachment(network=network, interface=f"eth{index}", args=args, capabilities=capabilities)
            for index, network in enumerate(networks)
        )
        await in_thread(self._attachments.put, request.pod_id, attached)
        try:
            async with asyncio.TaskGroup() as group:
                adding = group.create_task(self._add(request, attached))
                if networks[0].source == builtin.SOURCE and self._masquerade is not None:
                    group.create_task(self._masquerade.ensure())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        attached, addresses = adding.result()
        await in_thread(self._attachments.put, request.pod_id, attached)
        return NetworkResult(
            interface=attached[0].interface,
            addresses=result.ordered(addresses, self._preference),
            networks=tuple(network.name for network in networks),
        )

    async def _add(
        self, request: NetworkRequest, planned: tuple[Attachment, ...]
    ) -> tuple[tuple[Attachment, ...], tuple[str, ...]]:
        """ADD to each network; the attachments with their results, and the first interface's addresses."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._limits.add
        answers = [
            await self._plugins.add(
                attachment.network,
                _call(request, attachment, request.netns),
                attachment.capabilities,
                limit=max(0.0, end - loop.time()),
            )
            for attachment in planned
        ]
        first = planned[0]
        if not answers[0].addresses:
            raise Internal(
                f"CNI ADD, network {first.network.name}: the result has no address for {first.interface}"
            )
        attached = tuple(
            replace(attachment, result=answer.document)
            for attachment, answer in zip(planned, answers, strict=True)
        )
        return attached, answers[0].addresses

    async def detach(self, request: NetworkRequest) -> None:
        """Undo `attach`, in reverse, as the pod was attached then; repeatable, absent is success.

        Works without the namespace and without the configuration. Every network is tried; the first failure
        is raised (PluginFailed, Deadline, Busy, Internal) and the whole can be repeated.
        """
        kept, netns = await asyncio.to_thread(self._recall, request)
        if kept is None:
            kept = self._assumed(request)
        loop = asyncio.get_running_loop()
        end = loop.time() + self._limits.delete
        failures: list[CrispError] = []
        for attachment in reversed(kept):
            try:
                await self._plugins.delete(
                    attachment.network,
                    _call(request, attachment, netns),
                    attachment.capabilities,
                    attachment.result,
                    limit=max(0.0, end - loop.time()),
                )
            except CrispError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        await in_thread(self._attachments.remove, request.pod_id)

    def _recall(self, request: NetworkRequest) -> tuple[tuple[Attachment, ...] | None, str]:
        """What is kept of the pod, and its namespace's path while it is one. Blocking.

        Plugins fail for the plain file that is left when a pin lost its mount (bridge: "unknown FS magic").
        """
        netns = request.netns if request.netns and is_namespace(request.netns) else ""
        return self._attachments.get(request.pod_id), netns

    async def check(self, request: NetworkRequest) -> None:
        """Ask the plugins whether the pod's attachment is as ADD left it. Raises what they answer."""
        kept = await asyncio.to_thread(self._attachments.get, request.pod_id)
        for attachment in kept or ():
            if attachment.result is not None:
                await self._plugins.check(
                    attachment.network,
                    _call(request, attachment, request.netns),
                    attachment.capabilities,
                    attachment.result,
                    limit=self._limits.add,
                )

    async def retire(self) -> None:
        """Remove the built-in network's bridge and rules once no pod is attached. Raises Internal."""
        if self._builtin is None or self._masquerade is None:
            return
        if len(await asyncio.to_thread(self._attachments.pods)) > 0:
            return
        await self._masquerade.remove()
        bridge = self._builtin.bridge
        try:
            await asyncio.to_thread(link.remove_bridge, bridge)
        except OSError as error:
            raise Internal(f"removing the bridge {bridge}: {error.strerror}") from error

    async def collect(self, pods: Iterable[PodId]) -> None:
        """Drop every attachment but those of `pods`: DEL for what is kept of others, then GC to the plugins.

        `pods` must be all that use these networks; GC removes the others'. Raises the first failure, after
        everything was tried.
        """
        valid = frozenset(pods)
        failures: list[CrispError] = []
        keep: list[tuple[PodId, str]] = []
        for pod_id in sorted(await asyncio.to_thread(self._attachments.pods)):
            kept = await asyncio.to_thread(self._attachments.get, pod_id) or ()
            if pod_id in valid:
                keep += [(pod_id, attachment.interface) for attachment in kept]
                continue
            try:
                await self._drop(pod_id, kept)
            except CrispError as error:
                failures.append(error)
        listed = invocation.valid_attachments(keep)
        for network in self._networks(port_mappings=True):
            try:
                await self._plugins.collect(network, listed, limit=self._limits.delete)
            except CrispError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    async def _drop(self, pod_id: PodId, kept: tuple[Attachment, ...]) -> None:
        for attachment in reversed(kept):
            call = Call(container_id=pod_id, interface=attachment.interface, args=attachment.args)
            await self._plugins.delete(
                attachment.network,
                call,
                attachment.capabilities,
                attachment.result,
                limit=self._limits.delete,
            )
        await in_thread(self._attachments.remove, pod_id)

    def _assumed(self, request: NetworkRequest) -> tuple[Attachment, ...]:
        """How a pod of which nothing is kept would be attached now: all that a DEL can go by."""
        networks = self._networks(port_mappings=True)
        if not networks:
            log.warning("nothing is known of a pod's network", extra={"pod": request.pod_id})
            return ()
        try:
            args, capabilities = invocation.arguments(request), invocation.capability_values(request)
        except BadInput:  # no ADD can have been run for such a request
            return ()
        return tuple(
            Attachment(network=network, interface=f"eth{index}", args=args, capabilities=capabilities)
            for index, network in enumerate(networks)
        )

    def _networks(self, *, port_mappings: bool) -> tuple[Configuration, ...]:
        if self._loaded.networks or self._builtin is None:
            return self._loaded.networks
        return (self._builtin.compose(port_mappings=port_mappings),)

    def _watched(self) -> bool:
        return self._watch is not None and self._watch.armed

    def _stale(self) -> bool:
        """Whether the last answer of STATUS, or of an unwatched directory, has become old."""
        if self._watched() and not any(n.at_least("1.1.0") for n in self._loaded.networks):
            return False
        return asyncio.get_running_loop().time() - self._asked > self._limits.status

    def _refresh_soon(self) -> None:
        """Refresh in the background; what changes meanwhile is looked at once more afterwards."""
        if self._refreshing is not None and not self._refreshing.done():
            self._again = True
            return
        self._refreshing = asyncio.get_running_loop().create_task(self._refresh_until_quiet())

    async def _refresh_until_quiet(self) -> None:
        self._again = True
        while self._again:
            self._again = False
            try:
                await self._refresh()
            except Exception:  # the task has no caller; the next change tries again
                log.exception("reading the CNI configuration failed")

    async def _refresh(self) -> None:
        self._asked = asyncio.get_running_loop().time()
        before = (self._loaded, self._refusal)
        loaded = await asyncio.to_thread(configurations.load, self._conf_dir, limit=self._max_confs)
        refusal = ""
        for network in loaded.networks:
            try:
                await self._plugins.status(network, limit=self._limits.status)
            except CrispError as error:
                refusal = error.message
                break
        self._loaded, self._refusal = loaded, refusal
        if (loaded, refusal) != before:
            log.info(
                "CNI configuration read",
                extra={"networks": self.names(), "problems": loaded.problems, "refusal": refusal},
            )
            self._changed()


def _call(request: NetworkRequest, attachment: Attachment, netns: str) -> Call:
    return Call(
        container_id=request.pod_id,
        netns=netns,
        interface=attachment.interface,
        args=attachment.args,
    )
