"""Mount sources, devices and profiles of the host, as a request names them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from oci.bundle import ResolvedDevice, ResolvedMount
from oci.errors import BadInput
from oci.facts import DeviceNode, Peering, SourceFacts
from oci.workload import DeviceRequest, ImageSpec, MountRequest, Propagation
from shim.facts.sources import holding, peering, read_seccomp_profile, resolve_devices, resolve_mounts
from shim.kernel.mountinfo import parse_mountinfo

TABLE = parse_mountinfo(
    b"1 0 8:1 / / rw shared:1 - ext4 /dev/sda rw\n"
    b"2 1 0:2 / /proc rw - proc proc rw\n"
    b"3 1 0:3 / /data rw shared:3 master:1 - tmpfs t rw\n"
    b"4 1 0:4 / /slave rw master:1 - tmpfs t rw\n"
    b"5 3 0:5 / /data rw - xfs over rw\n"
    b"6 1 0:6 / /with\\040space rw shared:9 - ext4 s rw\n"
)


@pytest.mark.parametrize(
    ("path", "identity", "kind"),
    [
        ("/", 1, Peering.SHARED),
        ("/database", 1, Peering.SHARED),
        ("/proc/sys", 2, Peering.PRIVATE),
        ("/data/x", 5, Peering.PRIVATE),
        ("/slave", 4, Peering.SLAVE),
        ("/with space/x", 6, Peering.SHARED),
    ],
)
def test_the_deepest_and_newest_mount_holds_a_path(path: str, identity: int, kind: Peering) -> None:
    found = holding(path, TABLE)
    assert found is not None and (found.id, peering(found)) == (identity, kind)


def test_shared_and_slave_at_once_counts_as_shared() -> None:
    assert peering(TABLE[2]) is Peering.SHARED
    assert peering(None) is Peering.PRIVATE


def test_links_of_a_source_are_resolved_and_the_request_is_kept(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "file").write_text("")
    asked = tuple(
        MountRequest(container_path="/a", host_path=str(tmp_path / name)) for name in ("link", "file")
    )
    real = os.path.realpath(tmp_path)
    assert resolve_mounts(asked) == (
        ResolvedMount(request=asked[0], source=SourceFacts(path=f"{real}/real", is_directory=True)),
        ResolvedMount(request=asked[1], source=SourceFacts(path=f"{real}/file", is_directory=False)),
    )


def test_propagation_makes_the_mount_be_looked_at(tmp_path: Path) -> None:
    asked = MountRequest(container_path="/a", host_path="/proc", propagation=Propagation.BIDIRECTIONAL)
    (found,) = resolve_mounts((asked,))
    assert found.source.file_system == "proc" and found.source.peering is not None


def test_a_mount_over_proc_makes_the_file_system_be_looked_at() -> None:
    (found,) = resolve_mounts((MountRequest(container_path="/proc/", host_path="/proc"),))
    assert found.source.file_system == "proc"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/nowhere/at/all", "config.mounts[1].host_path: '/nowhere/at/all' cannot be mounted: No such file"),
        ("relative", "config.mounts[1].host_path: 'relative' is not an absolute path"),
        ("", "config.mounts[1].host_path: '' is not an absolute path"),
        ("/a\0b", "config.mounts[1].host_path: contains NUL"),
    ],
)
def test_a_source_that_is_not_there_is_refused_with_its_index(path: str, message: str) -> None:
    asked = tuple(MountRequest(container_path="/a", host_path=host) for host in ("/", path))
    with pytest.raises(BadInput, match=re.escape(message)):
        resolve_mounts(asked)


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(BadInput, match="Too many levels of symbolic links"):
        resolve_mounts((MountRequest(container_path="/a", host_path=str(tmp_path / "loop")),))


def test_a_mount_of_an_image_has_the_directory_that_was_provided_for_it(tmp_path: Path) -> None:
    plain = MountRequest(container_path="/b", host_path=str(tmp_path))
    asked = MountRequest(container_path="/a", readonly=True, image=ImageSpec(image="x"))
    assert resolve_mounts((plain, asked), {1: "/provided/sub"})[1] == ResolvedMount(
        request=asked, source=SourceFacts(path="/provided/sub", is_directory=True)
    )


def test_a_device_is_found_through_a_link_and_named_for_the_container(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/null")
    asked = DeviceRequest(container_path="/dev/x", host_path=str(tmp_path / "link"), permissions="mrw")
    (found,) = resolve_devices((asked,))
    seen = Path("/dev/null").stat()
    assert found == ResolvedDevice(
        node=DeviceNode(
            path="/dev/x",
            kind="c",
            major=1,
            minor=3,
            mode=seen.st_mode & 0o7777,
            uid=seen.st_uid,
            gid=seen.st_gid,
        ),
        permissions="rwm",
    )


def test_without_a_container_path_a_device_keeps_its_own() -> None:
    (found,) = resolve_devices((DeviceRequest(container_path="", host_path="/dev/zero", permissions="r"),))
    assert found.node.path == "/dev/zero"


@pytest.mark.parametrize(
    ("path", "letters", "message"),
    [
        ("/dev/none", "r", "config.devices[0].host_path: '/dev/none' is no device: No such file"),
        ("/etc/passwd", "r", "config.devices[0].host_path: '/etc/passwd' is not a device"),
        ("/etc", "r", "config.devices[0].host_path: no device in the directory '/etc'"),
        ("/dev/null", "x", "config.devices[0].permissions: 'x'"),
        ("/dev/null", "", "config.devices[0].permissions: ''"),
    ],
)
def test_what_is_no_device_is_refused(path: str, letters: str, message: str) -> None:
    asked = DeviceRequest(container_path="/dev/x", host_path=path, permissions=letters)
    with pytest.raises(BadInput, match=re.escape(message)):
        resolve_devices((asked,))


def test_a_local_profile_is_read_as_it_is(tmp_path: Path) -> None:
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["x"], "action": "SCMP_ACT_ERRNO"}]}
    (tmp_path / "p.json").write_text(json.dumps(profile))
    assert read_seccomp_profile(str(tmp_path / "p.json")) == profile
    assert read_seccomp_profile(f"localhost/{tmp_path}/p.json") == profile


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not JSON"),
        ("[" * 100000, "is not JSON"),
        ("[]", "it has no defaultAction"),
        ('{"defaultAction": 1}', "it has no defaultAction"),
        ('{"defaultAction": "x", "syscalls": {}}', "syscalls is not a list"),
        ('{"defaultAction": "x", "syscalls": [{"names": ["a"]}]}', "rule 0 has no names or no action"),
        ('{"defaultAction": "x", "syscalls": [1]}', "rule 0 has no names or no action"),
    ],
)
def test_a_profile_of_another_shape_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(
        BadInput, match=rf"^config\.linux\.security_context\.seccomp\.localhost_ref: .*{message}"
    ):
        read_seccomp_profile(str(tmp_path / "p.json"))


def test_a_profile_that_cannot_be_read_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 10 << 30)
    for name, message in (("pipe", "is not a regular file"), ("huge", "is over"), ("none", "No such file")):
        with pytest.raises(BadInput, match=message):
            read_seccomp_profile(str(tmp_path / name))
    with pytest.raises(BadInput, match="is not an absolute path"):
        read_seccomp_profile("p.json")
