"""SELinux levels: each pod its own pair of categories."""

from __future__ import annotations

import itertools
import random

import pytest

from oci.bundle import SandboxInitInputs, build, sandbox_init
from oci.errors import BadInput, Full
from oci.selinux import CATEGORIES, check_relabel, file_label, new_level
from oci.workload import ContainerSecurity, PodSecurity, SelinuxOption
from tests import bundles

ALL = [f"s0:c{a},c{b}" for a, b in itertools.combinations(range(CATEGORIES), 2)]


def test_levels_are_never_given_twice() -> None:
    choose = random.Random(1).randrange
    taken: set[str] = set()
    for _ in range(2000):
        taken.add(new_level(taken, choose))
    assert len(taken) == 2000
    assert taken <= set(ALL)


@pytest.mark.parametrize("free", [ALL[0], ALL[-1], ALL[1234]])
def test_the_last_one_is_found_and_then_there_is_none(free: str) -> None:
    others = set(ALL) - {free}
    assert new_level(others, random.Random(2).randrange) == free
    with pytest.raises(Full, match="523776 pairs"):
        new_level({*others, free}, random.Random(2).randrange)


def test_a_containers_files_and_process_have_the_pods_level_and_its_own_wins() -> None:
    host = bundles.host(selinux=True)
    made = build(bundles.inputs(host=host, selinux_level="s0:c1,c2")).config
    own = bundles.container(
        security=ContainerSecurity(selinux=SelinuxOption(level="s0:c7"), namespaces=bundles.OWN_PID)
    )
    other = build(bundles.inputs(host=host, selinux_level="s0:c1,c2", container=own)).config

    assert made["process"]["selinuxLabel"] == "system_u:system_r:container_t:s0:c1,c2"
    assert made["linux"]["mountLabel"] == file_label("s0:c1,c2")
    assert other["process"]["selinuxLabel"] == "system_u:system_r:container_t:s0:c7"


def test_the_first_process_of_a_pod_is_labelled_too() -> None:
    inputs = bundles.inputs()
    members = {"pod_id": inputs.pod_id, "cgroup": inputs.cgroup, "namespaces": inputs.namespaces}
    pod = bundles.pod(security=PodSecurity(selinux=SelinuxOption(type="spc_t")))
    on = SandboxInitInputs(**members, pod=pod, host=bundles.host(selinux=True), selinux_level="s0:c1,c2")
    off = SandboxInitInputs(**members, pod=pod, host=bundles.host(selinux=False))

    assert sandbox_init(on).config["process"]["selinuxLabel"] == "system_u:system_r:spc_t:s0:c1,c2"
    assert sandbox_init(on).config["linux"]["mountLabel"] == file_label("s0:c1,c2")
    assert "selinuxLabel" not in sandbox_init(off).config["process"]


@pytest.mark.parametrize("path", ["/", "/etc", "/var/lib", "/home"])
def test_the_nodes_own_directories_are_not_relabelled(path: str) -> None:
    with pytest.raises(BadInput, match=r"^config.mounts\[0\].selinux_relabel: .* is the node's own"):
        check_relabel("config.mounts[0].selinux_relabel", path)
    check_relabel("config.mounts[0].selinux_relabel", "/var/lib/kubelet/pods/a/volumes/b")
