"""The Debian package in two versions of one tree: `python -m tests.node.package` prints where.

Built by `deploy/debian/build.sh` in the root that the machine's image is made from, since a package is for
the Debian that built it; the second version is the first with another number. Kept in the tests' cache by
what it is made of. Needs root and the network.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.node.image import TREE, root
from tests.parts.build import cache

SOURCES = ("api", "cli", "config", "deploy", "oci", "shim", "pyproject.toml", "requirements.lock")
REVISIONS = (1, 2)

_BUILD = """
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
mount -t proc proc "$2/root/proc"
mount --bind "$3" "$2/root/mnt"
cp /etc/resolv.conf "$2/root/etc/resolv.conf"
[ ! -e /etc/ssl/certs/ca-certificates.crt ] || cp /etc/ssl/certs/ca-certificates.crt "$2/root/etc/ssl/certs/"
chroot "$2/root" env PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root sh -eu -c '
    cp -R /mnt /src
    /src/deploy/debian/build.sh --out /out --revision 1
'
cp "$2"/root/out/*.deb "$4"
"""


def packages() -> Path:
    """A directory with one package for each of REVISIONS, made if it is not there (some minutes)."""
    target = cache() / f"node-packages-{_key()}"
    if target.exists():
        return target
    base = root()
    with tempfile.TemporaryDirectory(dir=cache(), prefix="node-packages.") as name:
        scratch, made = Path(name), Path(name, "made")
        for below in ("upper", "work", "root", "made"):
            (scratch / below).mkdir()
        with tempfile.TemporaryDirectory(dir=cache(), prefix="source.") as source:
            for part in (*SOURCES, "README.md", "LICENSE"):
                _copy(TREE / part, Path(source, part))
            _run("unshare", "--mount", "--propagation", "private", "sh", "-euc", _BUILD, "sh", base, scratch,
                 source, made)  # fmt: skip
        (first,) = made.glob("*.deb")
        _renumbered(first, scratch / "second")
        made.rename(target)
    return target


def _renumbered(package: Path, scratch: Path) -> None:
    """The same package with the next revision, beside it."""
    _run("dpkg-deb", "--raw-extract", package, scratch)
    control = scratch / "DEBIAN/control"
    before, after = (f"-{revision}~deb" for revision in REVISIONS)
    control.write_text(control.read_text().replace(before, after, 1))
    _run("dpkg-deb", "--root-owner-group", "-Zgzip", "--build", scratch,
         package.with_name(package.name.replace(before, after, 1)))  # fmt: skip


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def _key() -> str:
    told = hashlib.sha256()
    files = [path for part in SOURCES for path in sorted((TREE / part).rglob("*")) or [TREE / part]]
    for path in (*files, Path(__file__)):
        if path.is_file() and "__pycache__" not in path.parts:
            told.update(str(path.relative_to(TREE)).encode() + b"\0" + path.read_bytes())
    return told.hexdigest()[:16]


def _run(*words: str | Path) -> None:
    done = subprocess.run(["nice", *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        told = " ".join(str(word)[:80] for word in words)
        raise RuntimeError(f"{told} ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-4000:]}")


if __name__ == "__main__":
    print(packages())
