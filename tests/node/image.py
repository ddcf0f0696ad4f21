"""The virtual machine's disk, made once for each recipe: `python -m tests.node.image` prints where it is.

Debian 13 by debootstrap, then `prepare.sh` in a chroot; a second flavour has SELinux, enforcing, in place of
AppArmor. The recipe is what its files say and the locks of the Python packages; each has a directory of its
own in the tests' cache. Needs root, the network and debootstrap.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.parts.build import cache

HERE = Path(__file__).resolve().parent
TREE = HERE.parents[1]
LOCKS = (TREE / "requirements-dev.lock", TREE / "requirements.lock")
RELEASE = "trixie"
SIZE = "8G"  # sparse; what is written while the machine runs goes to a temporary file
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


CONTEXTS = "/etc/selinux/default/contexts/files/file_contexts"
SELINUX = ("apparmor=0", "security=selinux", "selinux=1", "enforcing=1")
"""What the kernel of that flavour is told; the last word counts."""


@dataclass(frozen=True, slots=True)
class Image:
    """A directory with `disk.img`, `vmlinuz` and `initrd`, only to be read; more words for the kernel."""

    directory: Path
    arguments: tuple[str, ...] = ()

    @property
    def disk(self) -> Path:
        return self.directory / "disk.img"

    @property
    def kernel(self) -> Path:
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.directory / "initrd"


def packages() -> list[str]:
    lines = (HERE / "packages.txt").read_text().splitlines()
    return sorted(line.strip() for line in lines if line.strip() and not line.startswith("#"))


def root() -> Path:
    """The directory that debootstrap made for today's packages, made if it is not there; only to be read."""
    made_of = f"{RELEASE} {' '.join(packages())}"
    target = cache() / f"node-root-{_hash(made_of.encode())}"
    with _locked("node-root.lock"):
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=cache(), prefix="node-root.") as scratch:
                made = Path(scratch, "made")
                include = f"--include={','.join(packages())}"
                _run("debootstrap", "--variant=minbase", include, RELEASE, made)
                made.rename(target)
    return target


def image(*, selinux: bool = False) -> Image:
    """The image of today's recipe, made if it is not there (some minutes, with downloads)."""
    base = f"{RELEASE} {' '.join(packages())}"
    steps = [HERE / "prepare.sh", *([HERE / "prepare-selinux.sh"] if selinux else [])]
    own = [path.read_bytes() for path in (*steps, HERE / "job.sh", HERE / "image.py", *LOCKS)]
    target = cache() / f"node-{_hash(base.encode(), *own)}"
    found = Image(target, SELINUX if selinux else ())
    if target.exists():
        return found
    with _locked("node.lock"):
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=cache(), prefix="node.") as scratch:
                made = Path(scratch, "made")
                made.mkdir()
                _assemble(root(), Path(scratch, "root"), made, steps, labelled=selinux)
                made.rename(target)
    return found


def _assemble(base: Path, root: Path, made: Path, steps: list[Path], *, labelled: bool) -> None:
    _run("cp", "--archive", base, root)
    for lock in LOCKS:
        shutil.copy(lock, root / "tmp" / lock.name)
    job = root / "usr/local/sbin/node-job"
    shutil.copy(HERE / "job.sh", job)
    job.chmod(0o755)
    with _entered(root):
        for step in steps:
            _run("chroot", root, "sh", "-s", stdin=step.read_text())
    for lock in LOCKS:
        (root / "tmp" / lock.name).unlink()
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (kernel,) = (root / "boot").glob("vmlinuz-*")
    (initrd,) = (root / "boot").glob("initrd.img-*")
    shutil.copy(kernel, made / "vmlinuz")
    shutil.copy(initrd, made / "initrd")
    if labelled:  # mkfs.ext4 takes them over
        _run("chroot", root, "/usr/sbin/setfiles", "-F", CONTEXTS, "/")
    _run(
        "mkfs.ext4", "-q", "-L", "crisp-node", "-E", "lazy_itable_init=1", "-d", root, made / "disk.img", SIZE
    )


@contextmanager
def _entered(root: Path) -> Iterator[None]:
    """proc, and the builder's resolver and certificates, as long as the recipe runs in there."""
    with ExitStack() as undo:
        shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
        _run("mount", "-t", "proc", "proc", root / "proc")
        undo.callback(_run, "umount", root / "proc")
        if CERTIFICATES.exists():
            _run("mount", "--bind", CERTIFICATES, root / str(CERTIFICATES).lstrip("/"))
            undo.callback(_run, "umount", root / str(CERTIFICATES).lstrip("/"))
        yield


def _run(*words: str | Path, stdin: str | None = None) -> None:
    done = subprocess.run(["nice", *words], input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        told = " ".join(str(word) for word in words)
        raise RuntimeError(f"{told} ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-4000:]}")


def _hash(*parts: bytes) -> str:
    told = hashlib.sha256()
    for part in parts:
        told.update(hashlib.sha256(part).digest())
    return told.hexdigest()[:16]


@contextmanager
def _locked(name: str) -> Iterator[None]:
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> None:
    print(image().directory)


if __name__ == "__main__":
    main()
