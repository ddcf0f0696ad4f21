"""Status, RuntimeConfig and Version: what the daemon says of itself and of the node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from api.ports import Condition, HandlerStatus, NodeStatus
from config.loading import LoadedSettings
from oci.facts import CgroupDriver
from shim.node import Node
from shim.runtimes.table import HandlerTable

DISTRIBUTION = "crisp-cri"


def crisp_version() -> str:
    """The installed version, "0.0.0" when run from a tree that is not installed."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "0.0.0"


class NodeReport:
    """See `api.ports.Node`."""

    def __init__(
        self, node: Node, table: Callable[[], HandlerTable], loaded: Callable[[], LoadedSettings]
    ) -> None:
        self._node = node
        self._table = table
        self._loaded = loaded
        self._version = crisp_version()

    @property
    def version(self) -> str:
        return self._version

    @property
    def systemd_cgroups(self) -> bool:
        return self._node.host.cgroup.driver is CgroupDriver.SYSTEMD

    async def status(self) -> NodeStatus:
        """The two conditions that kubelet acts on, and the usable handlers."""
        table = self._table()
        usable = bool(table.default and table.default in table.handlers)
        ready, reason, message = self._node.network.condition()
        # Each feature is a promise, so the kernel and the image store must be able to keep it too.
        handlers = tuple(
            HandlerStatus(
                name=h.name,
                features=replace(
                    h.features,
                    user_namespaces=h.features.user_namespaces and not self._node.no_user_namespaces,
                ),
            )
            for h in table.handlers.values()
        )
        return NodeStatus(
            conditions=(
                Condition(
                    type="RuntimeReady",
                    status=usable,
                    reason="" if usable else "NoUsableHandler",
                    message=""
                    if usable
                    else "; ".join(f"{b.name}: {b.reason}" for b in table.invalid.values()),
                ),
                Condition(
                    type="NetworkReady",
                    status=ready,
                    reason="" if ready else reason or "NetworkPluginNotReady",
                    message="" if ready else message,
                ),
                # Our own, for people: kubelet looks at the two above, and the node serves its other handlers.
                Condition(
                    type="HandlersUsable",
                    status=not table.invalid,
                    reason="BrokenHandlers" if table.invalid else "",
                    message="; ".join(f"{b.name}: {b.reason}" for b in table.invalid.values()),
                ),
                *self._additional_stores(),
            ),
            handlers=handlers,
            default_handler=table.default if usable else "",
            user_namespaces_host_network=any(h.features.user_namespaces for h in handlers),
            mount_options=True,
        )

    def _additional_stores(self) -> tuple[Condition, ...]:
        """For people too, and only where there are such."""
        stores = self._node.images.additional
        broken = [f"{store.directory}: {store.problem}" for store in stores if store.problem]
        if not stores:
            return ()
        return (
            Condition(
                type="AdditionalStoresUsable",
                status=not broken,
                reason="BrokenStores" if broken else "",
                message="; ".join(broken),
            ),
        )

    async def describe(self) -> Mapping[str, Any]:
        """The verbose Status: `config` has what critest looks for, the rest is for people."""
        node, table = self._node, self._table()
        settings = node.settings
        return {
            "config": {
                "stateDir": str(settings.run_dir),
                "rootDir": str(settings.state_dir),
                "files": [str(file) for file in self._loaded().files],
            },
            "handlers": {
                "default": table.default,
                "defaultSource": table.default_source,
                "usable": {h.name: f"{h.binary} {h.version.version}" for h in table.handlers.values()},
                "broken": {b.name: b.reason for b in table.invalid.values()},
            },
            "state": {
                "pods": len(node.store.pods),
                "containers": len(node.store.containers),
                "images": len(node.store.images),
                "operations": node.operations.busy,
                "owed": [
                    *(f"{pod.id}: {pod.fault}" for pod in node.store.pods.values() if pod.fault),
                    *(f"{c.id}: {c.fault}" for c in node.store.containers.values() if c.fault),
                ],
                "findings": node.store.findings,
            },
            "additionalStores": {
                str(store.directory): {
                    "images": len(store.images),
                    "layers": len(store.layers),
                    "problem": store.problem,
                }
                for store in node.images.additional
            },
        }
