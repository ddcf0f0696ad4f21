"""The one rule for a subnet of the built-in network that lets its pods out under the node's address.

The bridge plugin can do it (`ipMasq`), with a chain a pod: that costs 15 ms of iptables an ADD and 35 ms a
DEL, and the chain of a pod whose namespace was lost is never removed (containernetworking plugins 1.1.1).
"""

from __future__ import annotations

import asyncio
import ipaddress

from oci.errors import Internal
from shim import process

_LIMIT = 10.0
_ABSENT = 1  # iptables' status for a rule that is not there


class Masquerade:
    """The rules of one bridge, one a subnet."""

    def __init__(self, bridge: str, subnets: tuple[str, ...]) -> None:
        self._rules = tuple(_rule(bridge, subnet) for subnet in subnets)
        self._lock = asyncio.Lock()

    async def ensure(self) -> None:
        """Make sure of the rules, which whoever reloads the firewall may have flushed. Raises Internal."""
        async with self._lock:  # two that find it absent would both append it
            for tool, rule in self._rules:
                if await self._iptables(tool, "-C", rule) == _ABSENT:
                    status = await self._iptables(tool, "-A", rule)
                    if status == _ABSENT:
                        raise Internal(f"built-in network: {tool} refuses the rule {' '.join(rule)}")

    async def remove(self) -> None:
        """Take the rules away; absent is success. Raises Internal."""
        async with self._lock:
            for tool, rule in self._rules:
                while await self._iptables(tool, "-D", rule) == 0:
                    pass

    async def _iptables(self, tool: str, action: str, rule: tuple[str, ...]) -> int:
        argv = [tool, "--wait", "5", "--table", "nat", action, "POSTROUTING", *rule]
        try:
            return (await process.run(argv, timeout=_LIMIT, ok=(0, _ABSENT))).returncode
        except process.CommandMissing as error:
            raise Internal(f"built-in network: {error.message}; install iptables") from error


def _rule(bridge: str, subnet: str) -> tuple[str, tuple[str, ...]]:
    """The tool for the subnet's family, and the rule in iptables' words."""
    tool = "iptables" if ipaddress.ip_network(subnet).version == 4 else "ip6tables"
    comment = ("-m", "comment", "--comment", f"crisp network {bridge}")
    return tool, ("-s", subnet, "!", "-o", bridge, *comment, "-j", "MASQUERADE")
