"""The network of our own, as plugins see it."""

from __future__ import annotations

import pytest

from oci.cni.builtin import compose


def test_a_pod_with_mapped_ports_gets_bridge_and_portmap() -> None:
    network = compose(
        bridge="crisp0", subnets=("10.84.0.0/16", "fd84::/64"), data_dir="/run/crisp/cni", port_mappings=True
    )
    assert network.document() == {
        "cniVersion": "1.0.0",
        "name": "crisp0",
        "disableCheck": False,
        "disableGC": False,
        "plugins": [
            {
                "type": "bridge",
                "bridge": "crisp0",
                "isGateway": True,
                "ipMasq": False,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": "10.84.0.0/16"}], [{"subnet": "fd84::/64"}]],
                    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
                    "dataDir": "/run/crisp/cni",
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
        ],
    }


@pytest.mark.parametrize(
    ("subnet", "route"), [("10.84.0.0/16", {"dst": "0.0.0.0/0"}), ("fd84::/64", {"dst": "::/0"})]
)
def test_a_pod_without_mapped_ports_is_spared_portmap_and_routes_of_the_other_family(
    subnet: str, route: dict[str, str]
) -> None:
    network = compose(bridge="b", subnets=(subnet,), data_dir="/d", port_mappings=False)
    assert [plugin.type for plugin in network.plugins] == ["bridge"]
    assert network.plugins[0].keys["ipam"]["routes"] == [route]
