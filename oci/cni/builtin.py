"""The network that Crisp offers a node without a CNI configuration: bridge, host-local and portmap.

It exists in memory and in the files of attached pods only; nothing of it is written where a cluster's own
network is configured.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any, Final

from oci.cni.configuration import Network, from_document

VERSION: Final = "1.0.0"  # the newest that Debian 12's plugins know
SOURCE: Final = "the built-in network"


def compose(*, bridge: str, subnets: Sequence[str], data_dir: str, port_mappings: bool) -> Network:
    """The network, named after its bridge, so that two daemons with bridges of their own do not mix.

    `data_dir` holds the leases and must not outlive a boot. portmap is left out for a pod without port
    mappings: it would be started twice for nothing. Raises BadInput for a malformed subnet.
    """
    families = {ipaddress.ip_network(subnet).version for subnet in subnets}
    routes = [{"dst": "0.0.0.0/0"}] * (4 in families) + [{"dst": "::/0"}] * (6 in families)
    plugins: list[dict[str, Any]] = [
        {
            "type": "bridge",
            "bridge": bridge,
            "isGateway": True,
            "ipMasq": False,  # `shim/network/masquerade.py` does it once for all pods
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": subnet}] for subnet in subnets],
                "routes": routes,
                "dataDir": data_dir,
            },
        }
    ]
    if port_mappings:
        plugins.append({"type": "portmap", "capabilities": {"portMappings": True}, "snat": True})
    document = {"cniVersion": VERSION, "name": bridge, "plugins": plugins}
    return from_document(document, source=SOURCE)
