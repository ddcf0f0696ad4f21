"""The process that unpacks a layer: what it cannot do even when it has been taken over, and what it may take.

It is taken over by a `sitecustomize` of the test's, which runs other code in it when it makes a directory.
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from oci.errors import BadInput, CrispError, Internal
from shim.images import unpacking
from shim.images.confinement import Bounds
from shim.kernel import capabilities
from tests.layers.archives import END, directory, header, member

LAYER = directory(b"./") + directory(b"first") + member(b"first/file", b"content") + END

HIJACK = """\
import ctypes, os, resource, signal, socket, sys
def evil(*arguments, **options):
    {code}
    raise AssertionError("it could")
os.mkdir = evil
"""
FORBIDDEN = {
    "starting a process": "os.fork()",
    "starting a program": "os.execv('/first', ['first'])",
    "starting a thread": "import _thread; _thread.start_new_thread(print, ())",
    "a socket": "socket.socket(socket.AF_INET)",
    "a socket of the host": "socket.socket(socket.AF_UNIX)",
    "a signal": "os.kill(1, 0)",
    "a mount": "ctypes.CDLL(None).mount(b'none', b'/', b'tmpfs', 0, None)",
    "another namespace": "ctypes.CDLL(None).unshare(0x10000000)",
    "another root": "os.chroot('.')",
    "other limits": "resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))",
    "other capabilities": "ctypes.CDLL(None).capset(b'', b'')",
    "looking at a process": "ctypes.CDLL(None).ptrace(16, 1, 0, 0)",
    "opening by handle": "ctypes.CDLL(None).open_by_handle_at(0, b'', 0)",
    "listing": "os.listdir('/')",
    "removing": "os.unlink('/first')",
    "renaming": "os.rename('/first', '/second')",
    "a device's control": "import fcntl; fcntl.ioctl(1, 0)",
}


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    (tmp_path / "layer.tar").write_bytes(LAYER)
    return tmp_path / "layer.tar"


def unpacked(tar: Path, *, bounds: Bounds | None = None, isolate: bool = True) -> CrispError | None:
    """What came of it: an error, or none."""
    work = unpacking.unpack(tar, tar.parent / "tree", "layer L", bounds=bounds, isolate=isolate)
    try:
        asyncio.run(work)
    except CrispError as error:
        return error
    return None


def taken_over(monkeypatch: pytest.MonkeyPatch, place: Path, code: str) -> None:
    hijack = place / "hijack"
    hijack.mkdir()
    (hijack / "sitecustomize.py").write_text(HIJACK.format(code=code))
    monkeypatch.setattr(unpacking, "_CODE", f"{hijack}:{unpacking._CODE}")


@pytest.mark.parametrize("what", FORBIDDEN)
def test_a_call_that_unpacking_does_not_need_kills_the_process_and_the_error_says_so(
    what: str, layer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken_over(monkeypatch, layer.parent, FORBIDDEN[what])
    error = unpacked(layer)
    assert type(error) is Internal
    assert error.message == (
        f"layer L: unpacking into {layer.parent}: its process was killed for a system call that unpacking "
        "does not need (SIGSYS); if the kernel's log shows a harmless one, images.isolate_unpack = false "
        "lets it be made"
    )
    assert list((layer.parent / "tree").iterdir()) == []


@pytest.mark.parametrize("path", ["/etc/passwd", "../../../../../../etc/passwd", "/proc/self/status"])
def test_no_file_of_the_host_is_in_reach(path: str, layer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken_over(monkeypatch, layer.parent, f"os.open({path!r}, os.O_RDONLY)")
    error = unpacked(layer)
    assert type(error) is Internal
    assert error.message.endswith("entry 'first': no such file or directory (ENOENT)")


def test_a_device_node_can_be_made_and_not_be_opened(layer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the root directory or by the descriptor that was inherited; the node is that of /dev/null."""
    code = (
        "os.mknod('/node', 0o20600, os.makedev(1, 3))\n"
        "    for below in ({}, {'dir_fd': int(sys.argv[2])}):\n"
        "        try: os.open('node', os.O_RDWR, **below)\n"
        "        except PermissionError: continue\n"
        "        raise AssertionError('it could')\n"
        "    os.open('/node', os.O_RDONLY)"
    )
    taken_over(monkeypatch, layer.parent, code)
    error = unpacked(layer)
    assert type(error) is Internal
    assert error.message.endswith("entry 'first': permission denied (EACCES)")
    assert (layer.parent / "tree/node").exists()


def test_without_isolation_the_walls_are_not_there(layer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken_over(monkeypatch, layer.parent, "os.close(os.open('/etc/passwd', os.O_RDONLY)); socket.socket()")
    error = unpacked(layer, isolate=False)
    assert error is not None
    assert "AssertionError: it could" in error.message


def test_memory_is_bounded(layer: Path) -> None:
    names = b"".join(header(b"%06d" % number) for number in range(60_000))
    layer.write_bytes(names + END)
    error = unpacked(layer, bounds=Bounds(memory=40 << 20))
    assert type(error) is BadInput
    assert error.message.endswith("the layer needs too much memory")
    layer.write_bytes(LAYER)
    assert unpacked(layer, bounds=Bounds(memory=40 << 20)) is None


def test_processor_time_is_bounded(layer: Path) -> None:
    """Each entry's parents lead a long way round through a symlink, which costs its look-ups again."""
    way = b"d/../" * 800 + b"d"
    entries = [directory(b"d"), member(b"l", flag=b"2", link=way)]
    entries += [directory(b"l/%d/x" % number) for number in range(20_000)]
    layer.write_bytes(b"".join((*entries, END)))
    error = unpacked(layer, bounds=Bounds(seconds=1))
    assert type(error) is BadInput
    assert error.message == (
        f"layer L: unpacking into {layer.parent}: the layer takes more than 1 s of processor time"
    )


def test_only_the_capabilities_that_are_named_and_were_there_are_kept() -> None:
    seen: list[str] = []

    def look() -> None:
        for kept in ((capabilities.CHOWN, capabilities.MKNOD), (capabilities.CHOWN, capabilities.SYS_ADMIN)):
            capabilities.keep(kept)
            lines = Path("/proc/thread-self/status").read_text().splitlines()
            seen.extend(
                line.split()[1].lstrip("0") for line in lines if line.startswith(("CapPrm", "CapEff"))
            )

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == ["8000001", "8000001", "1", "1"]
