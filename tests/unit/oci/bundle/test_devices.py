"""Devices: nodes, cgroup rules, and the privileged's all."""

from __future__ import annotations

from typing import Any

import pytest

from oci.bundle import BundleDefaults, HandlerTraits, ResolvedDevice
from oci.bundle.devices import devices, permissions
from oci.errors import BadInput
from oci.facts import DeviceNode, ResolvedUser
from oci.workload import ContainerSecurity
from tests import bundles

FUSE = DeviceNode(path="/dev/fuse", kind="c", major=10, minor=229, mode=0o666)
DENY = {"allow": False, "access": "rwm"}
PRIVILEGED = bundles.container(security=ContainerSecurity(privileged=True))


def node(path: str, kind: str, major: int, minor: int, mode: int, **changed: Any) -> dict[str, Any]:
    base = {"path": path, "type": kind, "major": major, "minor": minor, "fileMode": mode, "uid": 0, "gid": 0}
    return {**base, **changed}


def test_without_a_request_everything_is_denied() -> None:
    assert devices(bundles.inputs()) == ([], [DENY])


def test_a_device_is_made_and_allowed_with_its_permissions() -> None:
    asked = (ResolvedDevice(node=FUSE, permissions="mr"),)
    assert devices(bundles.inputs(devices=asked)) == (
        [node("/dev/fuse", "c", 10, 229, 0o666)],
        [DENY, {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rm"}],
    )


def test_the_privileged_have_all_nodes_and_may_use_any() -> None:
    assert devices(bundles.inputs(container=PRIVILEGED)) == (
        [node("/dev/kmsg", "c", 1, 11, 0o644), node("/dev/vda", "b", 254, 0, 0o660, gid=6)],
        [{"allow": True, "access": "rwm"}],
    )


def test_a_handler_can_keep_the_hosts_nodes_from_the_privileged() -> None:
    handler = HandlerTraits(privileged_without_host_devices=True)
    asked = (ResolvedDevice(node=FUSE, permissions="rw"),)
    assert devices(bundles.inputs(container=PRIVILEGED, handler=handler, devices=asked)) == (
        [node("/dev/fuse", "c", 10, 229, 0o666)],
        [{"allow": True, "access": "rwm"}],
    )


def test_of_two_devices_at_one_path_the_later_wins() -> None:
    second = DeviceNode(path="/dev/./fuse", kind="b", major=1, minor=2, mode=0o600)
    asked = tuple(ResolvedDevice(node=one, permissions="r") for one in (FUSE, second))
    assert devices(bundles.inputs(devices=asked))[0] == [node("/dev/fuse", "b", 1, 2, 0o600)]


def test_nodes_can_belong_to_the_containers_user() -> None:
    inputs = bundles.inputs(
        devices=(ResolvedDevice(node=FUSE, permissions="rw"),),
        user=ResolvedUser(uid=1000, gid=100),
        defaults=BundleDefaults(device_ownership_from_user=True),
    )
    assert devices(inputs)[0] == [node("/dev/fuse", "c", 10, 229, 0o666, uid=1000, gid=100)]


@pytest.mark.parametrize("text", ["", "x", "rwx", "RW"])
def test_other_letters_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match=r"^config\.devices\[0\]\.permissions"):
        permissions("config.devices[0].permissions", text)
