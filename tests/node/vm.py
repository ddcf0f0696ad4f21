"""One run of the virtual machine: a job goes in on a disk, its results come out on another.

qemu emulates (no KVM), without a network. The disk image is never written: changes live in qemu's temporary
file. The process ends with the run, with the time limit, or with this process, whatever ends it.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.node.image import Image

PROCESSORS = 2
MEMORY = 4096  # MiB
RESULTS = 2 << 30  # bytes that results may take; sparse
POWER_OFF = 75  # a job that ends with it is done again after a reboot; see job.sh


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """`status` is the job's, None if the machine never said. Files of the run are in `directory`.

    `console.log` is the kernel's and systemd's, `output.log` the job's, `results/` what the job left with the
    journal.
    """

    status: int | None
    seconds: float
    directory: Path


def run(
    image: Image,
    script: str,
    directory: Path,
    *,
    trees: Mapping[str, Path],
    limit: float,
) -> Outcome:
    """Boot, run a shell script in /crisp, turn off. `trees` maps paths in the machine to what is put there.

    `limit` is in seconds for everything; the machine is killed after it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="crisp-node.", dir="/var/tmp") as name:
        scratch = Path(name)
        _pack(scratch / "job.tar", script, trees)
        with (scratch / "results.img").open("wb") as results:
            results.truncate(RESULTS)
        argv = command(image, scratch, directory)
        with subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": name}
        ) as process:
            try:
                process.wait(limit)
            except subprocess.TimeoutExpired:
                pass
            finally:
                process.kill()
        unpacked = directory / "results"
        shutil.rmtree(unpacked, ignore_errors=True)
        _unpack(scratch / "results.img", unpacked)
    told = unpacked / "status"
    status = int(told.read_text()) if told.exists() else None
    return Outcome(status=status, seconds=time.monotonic() - began, directory=directory)


def command(image: Image, scratch: Path, directory: Path) -> list[str]:
    """qemu's argv; it dies with the process that starts it."""
    kernel = [
        "root=LABEL=crisp-node", "rw", "console=ttyS0", "quiet", "panic=-1", "mitigations=off",
        "systemd.service_watchdogs=no",
        "apparmor=1", "security=apparmor", *image.arguments,
    ]  # fmt: skip
    return [
        "setpriv", "--pdeathsig", "KILL", "nice", "-n", "10",
        "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
        "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max,la57=off",
        "-smp", str(PROCESSORS), "-m", str(MEMORY),
        "-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", " ".join(kernel),
        "-drive", f"file={image.disk},if=none,id=root,format=raw,snapshot=on,cache=unsafe",
        "-device", "virtio-blk-pci,drive=root,serial=root",
        "-drive", f"file={scratch / 'job.tar'},if=none,id=job,format=raw,readonly=on",
        "-device", "virtio-blk-pci,drive=job,serial=job",
        "-drive", f"file={scratch / 'results.img'},if=none,id=results,format=raw,cache=unsafe",
        "-device", "virtio-blk-pci,drive=results,serial=results",
        "-device", "virtio-rng-pci",
        "-serial", f"file:{directory / 'console.log'}",
        "-serial", f"file:{directory / 'output.log'}",
        "-nic", "none",
    ]  # fmt: skip


def _pack(path: Path, script: str, trees: Mapping[str, Path]) -> None:
    def owned(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if entry.name.rpartition("/")[2] in ("__pycache__", ".git", ".mypy_cache", ".ruff_cache"):
            return None
        entry.uid = entry.gid = 0
        return entry

    with tarfile.open(path, "w") as archive:
        job = tarfile.TarInfo("crisp-job")
        job.size = len(script.encode())
        archive.addfile(job, io.BytesIO(script.encode()))
        for name, source in trees.items():
            archive.add(source, name.lstrip("/"), filter=owned)


def _unpack(disk: Path, target: Path) -> None:
    """What the machine wrote, if it wrote anything: a disk that was never touched is no archive."""
    target.mkdir()
    with disk.open("rb") as raw:
        if raw.read(512).strip(b"\0") == b"":
            return
        raw.seek(0)
        with tarfile.open(fileobj=raw, mode="r|") as archive:
            for entry in archive:  # made by our own job, in a machine of our own
                if entry.isfile() or entry.isdir():
                    archive.extract(entry, target)
