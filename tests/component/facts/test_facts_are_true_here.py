"""What is said of this machine is so, and device nodes in an image are never opened."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from pathlib import Path

import pytest

from oci.errors import BadInput
from oci.facts import DeviceNode
from oci.workload import DeviceRequest, UserChoice
from shim.facts.host import device_nodes, gather
from shim.facts.rootfs import resolve_user
from shim.facts.sources import resolve_devices
from tests.machine import PATIENCE


def _score_of_a_child(score: int) -> bool:
    """Whether a child of ours can be given the score."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        try:
            Path(f"/proc/{child.pid}/oom_score_adj").write_text(str(score))
        except PermissionError:
            return False
    return True


def test_the_lowest_oom_score_can_be_given_and_a_lower_one_cannot() -> None:
    lowest = gather().lowest_oom_score_adj
    assert _score_of_a_child(lowest)
    assert lowest == -1000 or not _score_of_a_child(lowest - 1)


def test_every_controller_is_where_it_is_said_to_be() -> None:
    facts = gather().cgroup
    for controller, mount in facts.mounts.items():
        assert (Path(mount) / "cgroup.procs").exists(), controller
    assert {"cpu", "memory", "pids"} <= set(facts.mounts)


def test_swap_accounting_is_said_where_its_file_is() -> None:
    facts = gather()
    if facts.cgroup.version == 1:
        limit = Path(facts.cgroup.mounts["memory"]) / "memory.memsw.limit_in_bytes"
        assert facts.swap_accounting == limit.exists()


@pytest.mark.parametrize("number", [(1, 5), (1, 9), (5, 0)], ids=["zero", "urandom", "tty"])
def test_a_device_in_place_of_passwd_is_refused_at_once(tmp_path: Path, number: tuple[int, int]) -> None:
    (tmp_path / "etc").mkdir()
    os.mknod(tmp_path / "etc/passwd", stat.S_IFCHR | 0o666, os.makedev(*number))
    begun = time.monotonic()
    with pytest.raises(BadInput, match="the image's /etc/passwd: not a regular file"):
        resolve_user(tmp_path, UserChoice(), "web")
    assert time.monotonic() - begun < PATIENCE


def test_a_directory_of_devices_gives_every_node_below_it(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "pts").mkdir()
    for name, kind in (("b", stat.S_IFBLK), ("in/c", stat.S_IFCHR), ("pts/0", stat.S_IFCHR)):
        os.mknod(tmp_path / name, kind | 0o600, os.makedev(7, 3))
        (tmp_path / name).chmod(0o640)
    (tmp_path / "file").touch()
    block = DeviceNode(path="/dev/x/b", kind="b", major=7, minor=3, mode=0o640)
    inner = DeviceNode(path="/dev/x/in/c", kind="c", major=7, minor=3, mode=0o640)
    terminal = DeviceNode(path="/dev/x/pts/0", kind="c", major=7, minor=3, mode=0o640)
    asked = DeviceRequest(container_path="/dev/x", host_path=str(tmp_path), permissions="rw")

    assert [found.node for found in resolve_devices((asked,))] == [block, inner, terminal]
    assert [node.path for node in device_nodes(tmp_path)] == [f"{tmp_path}/b", f"{tmp_path}/in/c"]
