"""Executing CNI plugins: one plugin, or a network's plugins in the order that a verb asks for.

Knows the protocol (CNI specification, sections 2 and 3) and no pods: callers give the container id, the
namespace and what earlier calls answered. A plugin that does not end in time is killed with its children.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oci.cni import invocation, result
from oci.cni.configuration import Network, Plugin
from oci.cni.invocation import Verb
from oci.errors import Deadline, Internal
from shim import process

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What all plugins of one chain are told alike."""

    container_id: str = ""
    netns: str = ""
    interface: str = ""
    args: str = ""


class Plugins:
    """The plugins found in `directories`, in this order."""

    def __init__(self, directories: tuple[Path, ...]) -> None:
        self._directories = directories

    def find(self, name: str) -> Path | None:
        """The executable of that name. A few stat calls."""
        for directory in self._directories:
            candidate = directory / name
            if candidate.is_file() and os.access(candidate, os.X_OK):
                return candidate
        return None

    def missing(self, network: Network) -> str:
        """Why a network cannot work for want of a binary; "" when all are there."""
        absent = [plugin.type for plugin in network.plugins if self.find(plugin.type) is None]
        if not absent:
            return ""
        where = ", ".join(str(directory) for directory in self._directories)
        return f"network {network.name}: plugin {', '.join(absent)} is in none of {where}"

    async def add(
        self, network: Network, call: Call, capabilities: Mapping[str, Any], *, limit: float
    ) -> result.Result:
        """Run ADD of each plugin, each given the result so far, within `limit` seconds altogether.

        On any error some plugins may hold something: DEL must follow. Raises PluginFailed, Busy (try again
        later), Deadline, Internal.
        """
        answer: result.Result | None = None
        async with _Budget(limit, f"CNI ADD to network {network.name}") as budget:
            for plugin in network.plugins:
                previous = None if answer is None else answer.document
                data = invocation.standard_input(
                    network, plugin, capabilities=capabilities, previous=previous
                )
                output = await self._run(Verb.ADD, network, plugin, call, data, budget.left())
                answer = result.parse_result(
                    output, interface=call.interface, stage=_stage(Verb.ADD, network, plugin)
                )
        if answer is None:
            raise Internal(f"network {network.name} has no plugins")
        return answer

    async def delete(
        self,
        network: Network,
        call: Call,
        capabilities: Mapping[str, Any],
        previous: Mapping[str, Any] | None,
        *,
        limit: float,
    ) -> None:
        """Run DEL of each plugin, the last one first; one that knows no such container has succeeded."""
        told = previous if network.at_least("0.4.0") else None
        async with _Budget(limit, f"CNI DEL from network {network.name}") as budget:
            for plugin in reversed(network.plugins):
                data = invocation.standard_input(network, plugin, capabilities=capabilities, previous=told)
                try:
                    await self._run(Verb.DEL, network, plugin, call, data, budget.left())
                except result.PluginFailed as error:
                    if error.code != result.CODE_UNKNOWN_CONTAINER:
                        raise

    async def check(
        self,
        network: Network,
        call: Call,
        capabilities: Mapping[str, Any],
        previous: Mapping[str, Any],
        *,
        limit: float,
    ) -> None:
        """Run CHECK of each plugin, where the configuration's version has it and does not switch it off."""
        if not network.at_least("0.4.0") or network.disable_check:
            return
        async with _Budget(limit, f"CNI CHECK of network {network.name}") as budget:
            for plugin in network.plugins:
                data = invocation.standard_input(
                    network, plugin, capabilities=capabilities, previous=previous
                )
                await self._run(Verb.CHECK, network, plugin, call, data, budget.left())

    async def status(self, network: Network, *, limit: float) -> None:
        """Ask each plugin whether it could ADD; below version 1.1.0 there is nothing to ask."""
        if not network.at_least("1.1.0"):
            return
        async with _Budget(limit, f"CNI STATUS of network {network.name}") as budget:
            for plugin in network.plugins:
                data = invocation.standard_input(network, plugin)
                await self._run(Verb.STATUS, network, plugin, Call(), data, budget.left())

    async def collect(self, network: Network, valid: Mapping[str, Any], *, limit: float) -> None:
        """Run GC of each plugin with the attachments to keep; all run, the first failure is raised."""
        if not network.at_least("1.1.0") or network.disable_gc:
            return
        failures: list[Exception] = []
        async with _Budget(limit, f"CNI GC of network {network.name}") as budget:
            for plugin in network.plugins:
                data = invocation.standard_input(network, plugin, extra=valid)
                try:
                    await self._run(Verb.GC, network, plugin, Call(), data, budget.left())
                except result.PluginFailed as error:
                    failures.append(error)
        if failures:
            raise failures[0]

    async def _run(
        self, verb: Verb, network: Network, plugin: Plugin, call: Call, data: bytes, limit: float
    ) -> bytes:
        stage = _stage(verb, network, plugin)
        binary = self.find(plugin.type)
        if binary is None:
            raise Internal(f"{stage}: {self.missing(network)}")
        environment = invocation.environment(
            verb,
            path=[str(directory) for directory in self._directories],
            container_id=call.container_id,
            netns=call.netns,
            interface=call.interface,
            args=call.args,
        )
        answer = await process.run(
            [binary], env=environment, stdin=data, timeout=limit, ok=_Any(), output_limit=1 << 22
        )
        if answer.returncode != 0:
            raise result.failure(answer.returncode, answer.stdout, answer.stderr, stage=stage)
        return answer.stdout


class _Any:
    """Every exit status: the plugin's own words say more than the status."""

    def __contains__(self, status: object) -> bool:
        return True


class _Budget:
    """A time limit over several commands, of which each gets what is left and is then killed."""

    def __init__(self, limit: float, stage: str) -> None:
        self._limit = limit
        self._stage = stage
        self._end = 0.0

    async def __aenter__(self) -> _Budget:
        self._end = asyncio.get_running_loop().time() + self._limit
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, process.CommandTimedOut):
            raise Deadline(f"{self._stage}: {error.message} (limit {self._limit:.3g} s in all)") from error

    def left(self) -> float:
        return max(0.0, self._end - asyncio.get_running_loop().time())


def _stage(verb: Verb, network: Network, plugin: Plugin) -> str:
    return f"CNI {verb.value}, network {network.name}, plugin {plugin.type}"
