"""The leak check finds what it is for: one planted leak of each kind, and nothing where nothing was left."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import leaks


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def plant_mount(undo: ExitStack, room: Path) -> str:
    subprocess.run(["mount", "-t", "tmpfs", "planted", room], check=True)
    undo.callback(lambda: subprocess.run(["umount", room], check=True))
    return f"mount {room} (tmpfs /)"


def plant_network_namespace(undo: ExitStack, room: Path) -> str:
    ip("netns", "add", "crisp-planted")
    undo.callback(ip, "netns", "delete", "crisp-planted")
    return "network namespace crisp-planted"


def plant_link(undo: ExitStack, room: Path) -> str:
    ip("link", "add", "crisp-planted", "type", "bridge")
    undo.callback(ip, "link", "delete", "crisp-planted")
    return "link crisp-planted"


def plant_lease(undo: ExitStack, room: Path) -> str:
    (room / "network").mkdir()
    (room / "network" / "lock").touch()
    (room / "network" / "10.99.0.7").write_text("planted")
    return f"lease 10.99.0.7 of network in {room}"


def plant_cgroup(undo: ExitStack, room: Path) -> str:
    top = next(entry for entry in sorted(leaks.mounts()) if "(cgroup" in entry).partition(" (")[0]
    group = Path(top, "crisp-planted")
    group.mkdir()
    undo.callback(group.rmdir)
    return f"cgroup {group}"


def plant_child(undo: ExitStack, room: Path) -> str:
    child = subprocess.Popen(["sleep", "1000"])
    undo.callback(child.wait)
    undo.callback(child.kill)
    return f"process {child.pid} *: sleep: sleep 1000"


def plant_orphan_of_a_runtime(undo: ExitStack, room: Path) -> str:
    """As conmon does it: the parent is gone, only the program's name tells whose it was."""
    (room / "conmon").symlink_to("/usr/bin/sleep")
    shell = subprocess.run(
        ["setsid", "sh", "-c", f"{room}/conmon 1000 >/dev/null & echo $!"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    pid = int(shell.stdout)
    undo.callback(os.kill, pid, 9)
    return f"process {pid} *: conmon: {room}/conmon 1000"


def plant_orphan_in_another_mount_namespace(undo: ExitStack, room: Path) -> str:
    """A container whose monitor is gone."""
    script = "unshare --mount sh -c 'echo $$; exec sleep 1001 >&-' & wait -n"
    shell = subprocess.Popen(["setsid", "bash", "-c", script], stdout=subprocess.PIPE)
    assert shell.stdout is not None
    pid = int(shell.stdout.readline())
    undo.callback(os.kill, pid, 9)
    shell.kill()
    shell.communicate()
    return f"process {pid} *: s*: *sleep 1001"


def plant_firewall_chain(undo: ExitStack, room: Path) -> str:
    chain = "CNI-DN-0123456789abcdef01234"
    subprocess.run(["iptables", "-t", "nat", "-N", chain], check=True)
    undo.callback(lambda: subprocess.run(["iptables", "-t", "nat", "-X", chain], check=True))
    return f"firewall :{chain} - (iptables-save)"


def plant_firewall_rule(undo: ExitStack, room: Path) -> str:
    rule = [
        "POSTROUTING",
        "-s",
        "10.99.0.0/24",
        "-m",
        "comment",
        "--comment",
        "crisp planted",
        "-j",
        "RETURN",
    ]
    subprocess.run(["iptables", "-t", "nat", "-A", *rule], check=True)
    undo.callback(lambda: subprocess.run(["iptables", "-t", "nat", "-D", *rule], check=True))
    shown = '-A POSTROUTING -s 10.99.0.0/24 -m comment --comment "crisp planted" -j RETURN'
    return f"firewall {shown} (iptables-save)"


def plant_path(undo: ExitStack, room: Path) -> str:
    (room / "pods").mkdir()
    return f"path {room}/pods"


def plant_descriptor(undo: ExitStack, room: Path) -> str:
    undo.callback(os.close, os.open("/etc/hostname", os.O_RDONLY))
    return "descriptor /etc/hostname"


@pytest.mark.parametrize(
    "plant",
    [
        plant_mount,
        plant_network_namespace,
        plant_link,
        plant_lease,
        plant_cgroup,
        plant_child,
        plant_orphan_of_a_runtime,
        plant_orphan_in_another_mount_namespace,
        plant_firewall_chain,
        plant_firewall_rule,
        plant_path,
        plant_descriptor,
    ],
    ids=lambda plant: plant.__name__,
)
def test_a_planted_leak_is_found_and_its_removal_too(
    plant: Callable[[ExitStack, Path], str], tmp_path: Path
) -> None:
    room = tmp_path / "room"
    scope = leaks.Scope(directories=(room,), leases=(room,), daemon=os.getpid())
    before = leaks.take(scope)
    with ExitStack() as undo:
        room.mkdir()
        undo.callback(shutil.rmtree, room)
        planted = plant(undo, room)
        found = leaks.diff(before, leaks.take(scope))
        assert leaks.diff(before, leaks.take(scope), expected=(planted,)) != found, (
            f"{planted} not in {found}"
        )
    assert leaks.settled(before, scope) == ()


def test_what_the_machine_had_and_lost_is_found() -> None:
    ip("link", "add", "crisp-planted", "type", "bridge")
    before = leaks.take()
    ip("link", "delete", "crisp-planted")
    assert leaks.diff(before, leaks.take()) == ("link crisp-planted is gone",)


def test_a_test_that_leaves_something_fails(pytestconfig: pytest.Config) -> None:
    """The fixture itself, in a run of its own over a test that leaves a link."""
    inner = Path(__file__).parent / "leaving" / "case_leaves_a_link.py"
    try:
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(inner)],
            cwd=pytestconfig.rootpath,
            env={**os.environ, "CRISP_TESTS_HOLD_THE_LOCK": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (run.returncode, run.stdout.splitlines()[-1].partition(" in ")[0]) == (1, "1 passed, 1 error")
        assert "link crisp-left" in run.stdout
    finally:
        ip("link", "delete", "crisp-left")
