"""Mounts: which there are, in what order, with which options, and which are refused."""

from __future__ import annotations

import re
from typing import Any

import pytest

from oci.bundle import BundleInputs, HandlerTraits, PodFiles, ResolvedMount
from oci.bundle.mounts import mounts, rootfs_propagation
from oci.errors import BadInput, CrispError, Unsupported
from oci.facts import Peering, SourceFacts
from oci.workload import (
    ContainerSecurity,
    IdMapping,
    MountRequest,
    NamespaceMode,
    NamespaceOptions,
    PodSecurity,
    Propagation,
    UserNamespace,
)
from tests import bundles


def resolved(
    path: str, *, source: str = "/host/dir", peering: Peering | None = None, fs: str = "ext4", **changed: Any
) -> ResolvedMount:
    return ResolvedMount(
        request=MountRequest(container_path=path, host_path="/asked", **changed),
        source=SourceFacts(path=source, is_directory=True, peering=peering, file_system=fs),
    )


def made(*requests: ResolvedMount, **changed: Any) -> list[dict[str, Any]]:
    return mounts(bundles.inputs(mounts=requests, **changed))


def at(path: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    (only,) = [mount for mount in found if mount["destination"] == path]
    return only


def test_a_container_gets_the_customary_file_systems_and_the_pods_files() -> None:
    assert [(m["destination"], m["type"]) for m in made()] == [
        ("/proc", "proc"),
        ("/dev", "tmpfs"),
        ("/sys", "sysfs"),
        ("/dev/pts", "devpts"),
        ("/dev/mqueue", "mqueue"),
        ("/dev/shm", "bind"),
        ("/etc/hosts", "bind"),
        ("/etc/hostname", "bind"),
        ("/etc/resolv.conf", "bind"),
        ("/sys/fs/cgroup", "cgroup"),
    ]


def test_sysfs_and_cgroups_are_writable_only_for_the_privileged() -> None:
    plain = made()
    privileged = made(container=bundles.container(security=ContainerSecurity(privileged=True)))
    assert [at(path, plain)["options"][-1] for path in ("/sys", "/sys/fs/cgroup")] == ["ro", "ro"]
    assert [at(path, privileged)["options"][-1] for path in ("/sys", "/sys/fs/cgroup")] == ["rw", "rw"]


def test_the_pods_files_are_read_only_with_a_read_only_root() -> None:
    found = made(container=bundles.container(security=ContainerSecurity(readonly_rootfs=True)))
    assert at("/etc/hosts", found)["options"] == ["rbind", "rprivate", "ro"]
    assert at("/dev/shm", found)["options"][2] == "rw"


def test_files_that_the_pod_has_not_are_not_mounted() -> None:
    assert not [m for m in made(files=PodFiles()) if m["type"] == "bind"]


def test_a_request_replaces_the_default_at_its_path_and_the_last_of_two_wins() -> None:
    found = made(
        resolved("/etc/hosts", source="/kubelet/hosts"),
        resolved("/data", source="/one"),
        resolved("/data/", source="/two"),
        resolved("/dev/shm", source="/big"),
    )
    assert [at(p, found)["source"] for p in ("/etc/hosts", "/data", "/dev/shm")] == [
        "/kubelet/hosts",
        "/two",
        "/big",
    ]


def test_a_volume_of_the_image_gives_way_to_a_request() -> None:
    volumes = (("/data", "/anonymous/1"), ("/other", "/anonymous/2"))
    found = made(resolved("/data", source="/asked"), volumes=volumes)
    assert [at(path, found)["source"] for path in ("/data", "/other")] == ["/asked", "/anonymous/2"]


def test_outer_mounts_come_first() -> None:
    paths = [m["destination"] for m in made(resolved("/a/b/c"), resolved("/a"), resolved("/a/b"))]
    assert [path for path in paths if path.startswith("/a")] == ["/a", "/a/b", "/a/b/c"]


def test_a_volume_over_dev_or_sys_takes_the_defaults_below_along() -> None:
    found = {m["destination"]: m["type"] for m in made(resolved("/dev"), resolved("/sys"))}
    assert found == {
        "/proc": "proc",
        "/dev": "bind",
        "/sys": "bind",
        "/dev/shm": "bind",
        "/etc/hosts": "bind",
        "/etc/hostname": "bind",
        "/etc/resolv.conf": "bind",
    }


@pytest.mark.parametrize(
    ("changed", "peering", "options"),
    [
        ({}, None, ["rbind", "rprivate", "rw"]),
        ({"readonly": True}, None, ["rbind", "rprivate", "ro"]),
        ({"readonly": True, "recursive_read_only": True}, None, ["rbind", "rprivate", "rro"]),
        ({"options": ("noexec", "nosuid")}, None, ["rbind", "rprivate", "rw", "noexec", "nosuid"]),
        ({"propagation": Propagation.HOST_TO_CONTAINER}, Peering.SLAVE, ["rbind", "rslave", "rw"]),
        ({"propagation": Propagation.HOST_TO_CONTAINER}, Peering.SHARED, ["rbind", "rslave", "rw"]),
        ({"propagation": Propagation.BIDIRECTIONAL}, Peering.SHARED, ["rbind", "rshared", "rw"]),
    ],
)
def test_a_request_becomes_a_bind_with_exact_options(
    changed: dict[str, Any], peering: Peering | None, options: list[str]
) -> None:
    assert at("/data", made(resolved("/data", peering=peering, **changed))) == {
        "destination": "/data",
        "type": "bind",
        "source": "/host/dir",
        "options": options,
    }


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (resolved("data"), "config.mounts[0].container_path: 'data' is not an absolute path"),
        (resolved(""), "config.mounts[0].container_path: '' is not an absolute path"),
        (resolved("/"), "container_path: the root directory"),
        (resolved("/x/.."), "container_path: the root directory"),
        (resolved("/proc"), "container_path: /proc can be covered only by a proc file system"),
        (resolved("/proc/sys/kernel"), "container_path: '/proc/sys/kernel' is inside /proc"),
        (resolved("/x/../proc/self"), "container_path: '/proc/self' is inside /proc"),
        (resolved("/a\nb"), "container_path: contains NUL or a line break"),
        (resolved("/a", options=("suid",)), "config.mounts[0].mount_options: 'suid' is none of"),
        (resolved("/a", recursive_read_only=True), "recursive_read_only: needs readonly"),
        (
            resolved("/a", recursive_read_only=True, readonly=True, propagation=Propagation.HOST_TO_CONTAINER,
                     peering=Peering.SHARED),
            "recursive_read_only: needs propagation PROPAGATION_PRIVATE",
        ),
        (
            resolved("/a", propagation=Propagation.BIDIRECTIONAL, peering=Peering.SLAVE),
            "config.mounts[0].propagation: BIDIRECTIONAL needs a shared mount, and the one that holds"
            " '/host/dir' is slave",
        ),
        (
            resolved("/a", propagation=Propagation.HOST_TO_CONTAINER, peering=Peering.PRIVATE),
            "config.mounts[0].propagation: HOST_TO_CONTAINER needs a shared or slave mount",
        ),
        (
            resolved("/a", propagation=Propagation.HOST_TO_CONTAINER),
            "'/host/dir' is of unknown propagation",
        ),
    ],
)  # fmt: skip
def test_a_mount_that_cannot_be_is_refused_by_its_member(request_: ResolvedMount, message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        made(request_)


def test_proc_itself_and_the_files_that_lxcfs_covers_can_be_mounted() -> None:
    found = made(resolved("/proc", fs="proc"), resolved("/proc/cpuinfo", source="/lxcfs/cpuinfo"))
    assert [at(path, found)["type"] for path in ("/proc", "/proc/cpuinfo")] == ["bind", "bind"]


def test_recursive_read_only_without_the_feature_starts_with_the_word_kubelet_reads() -> None:
    request = resolved("/a", readonly=True, recursive_read_only=True)
    with pytest.raises(Unsupported) as caught:
        made(request, handler=HandlerTraits(name="crun"))
    assert str(caught.value).startswith(
        "RROUnsupported: config.mounts[0].recursive_read_only: handler 'crun'"
    )


def test_id_mapped_mounts_need_the_feature() -> None:
    line = IdMapping(host_id=100000, container_id=0, length=65536)
    request = resolved("/a", uid_mappings=(line,), gid_mappings=(line,))
    with pytest.raises(CrispError, match="id-mapped mounts"):
        made(request)
    shown = at("/a", made(request, handler=HandlerTraits(idmapped_mounts=True)))
    assert (
        shown["uidMappings"] == shown["gidMappings"] == [{"containerID": 0, "hostID": 100000, "size": 65536}]
    )


def test_the_root_propagates_as_far_as_the_most_open_mount_needs() -> None:
    slave = resolved("/a", propagation=Propagation.HOST_TO_CONTAINER)
    shared = resolved("/b", propagation=Propagation.BIDIRECTIONAL)
    assert [rootfs_propagation(found) for found in ((resolved("/c"),), (slave,), (slave, shared))] == [
        "",
        "rslave",
        "rshared",
    ]


def _userns(network: NamespaceMode, gids: int) -> BundleInputs:
    uids = (IdMapping(host_id=100000, container_id=0, length=65536),)
    mapped = UserNamespace(uids=uids, gids=(IdMapping(host_id=100000, container_id=0, length=gids),))
    options = NamespaceOptions(network=network, user=mapped, user_requested=True)
    return bundles.inputs(pod=bundles.pod(security=PodSecurity(namespaces=options)))


def test_a_user_namespace_on_the_hosts_network_binds_sysfs() -> None:
    assert at("/sys", mounts(_userns(NamespaceMode.NODE, 65536)))["type"] == "bind"
    assert at("/sys", mounts(_userns(NamespaceMode.POD, 65536)))["type"] == "sysfs"


def test_the_terminals_group_is_named_only_where_it_is_mapped() -> None:
    assert "gid=5" in at("/dev/pts", mounts(_userns(NamespaceMode.POD, 65536)))["options"]
    assert "gid=5" not in at("/dev/pts", mounts(_userns(NamespaceMode.POD, 5)))["options"]
