"""The image store of a running daemon, in a directory of its own: checked, repaired, carried away."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from api.proto import cri_pb2
from tests.component.cli.person import IMAGE, crisp, ended, said
from tests.daemon import CALL_LIMIT, Daemon


@pytest.fixture
def disk(daemon: Daemon) -> Path:
    """The daemon keeps its images, with the layers as they came, outside its state directory."""
    directory = daemon.directory / "disk"
    directory.mkdir(mode=0o700)
    daemon.overrides = {"images": {"directory": str(directory), "keep_compressed": True}}
    daemon.restart()
    return directory


def layers(disk: Path) -> list[Path]:
    return sorted((disk / "layers").glob("*.tar"))


def test_a_damage_under_a_running_pod_is_named_and_repaired(daemon: Daemon, disk: Path) -> None:
    said(daemon, "pull", "-q", IMAGE)
    said(daemon, "run", "-d", "--name", "works", IMAGE, "sleep", "1000")
    assert ended(daemon, "fsck", "-q") == (0, "", "")
    bad = max(layers(disk), key=lambda path: path.stat().st_size)
    with bad.open("r+b") as file:
        file.truncate(bad.stat().st_size // 2)
    status, output, words = ended(daemon, "fsck")
    assert (status, "1 findings" in words) == (1, True)
    assert str(bad) in output
    assert f"layer sha256:{bad.stem}" in output
    assert "images: docker.io/library/busybox:latest" in output
    assert "run on it: run/works/" in output
    found = json.loads(crisp(daemon, "fsck", "--fix", "-o", "json").stdout)
    assert [(one["repaired"], one["failure"]) for one in found["findings"]] == [("fetched again", "")]
    assert hashlib.sha256(bad.read_bytes()).hexdigest() == bad.stem
    assert ended(daemon, "fsck", "-q") == (0, "", "")
    assert said(daemon, "exec", "works", "echo", "on") == "on\n"
    said(daemon, "rm", "-f", "works")


def test_an_image_is_carried_away_whole_or_not_at_all(daemon: Daemon, disk: Path, tmp_path: Path) -> None:
    said(daemon, "pull", "-q", IMAGE)
    (image,) = json.loads(said(daemon, "images", "-o", "json"))
    archive = tmp_path / "image.tar"
    assert ended(daemon, "export", IMAGE, str(archive))[:2] == (0, "")
    with tarfile.open(archive) as tar:
        names = set(tar.getnames())
    kept = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (disk / "layers").glob("*.blob")]
    assert {f"blobs/sha256/{digest}" for digest in kept} < names  # the layers as the registry has them
    assert f"blobs/sha256/{image['id'][7:]}" in names
    before = archive.read_bytes()
    bad = max((disk / "layers").glob("*.blob"), key=lambda path: path.stat().st_size)
    content = bytearray(bad.read_bytes())
    content[len(content) // 2] ^= 1
    bad.write_bytes(content)
    status, _, words = ended(daemon, "export", IMAGE, str(archive))
    assert (status, "crisp fsck --fix" in words) == (1, True)
    assert archive.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert ended(daemon, "export", IMAGE, "/dev/null")[0] == 2
    assert ended(daemon, "export", "no/such:image", str(archive))[0] == 3
    said(daemon, "rmi", IMAGE)
    assert json.loads(said(daemon, "import", str(archive), "-o", "json"))[0]["id"] == image["id"]
    status, output, words = ended(daemon, "prune", "--all", "--dry-run")
    assert (status, "docker.io/library/busybox:latest" in output, "would be freed" in words) == (
        0,
        True,
        True,
    )
    assert len(json.loads(said(daemon, "images", "-o", "json"))) == 1
    assert ended(daemon, "prune", "--all")[0] == 0
    assert json.loads(said(daemon, "images", "-o", "json")) == []


def test_the_images_of_an_additional_store_run_and_are_shown_as_what_they_are(
    daemon: Daemon, tmp_path: Path
) -> None:
    said(daemon, "pull", "-q", IMAGE)
    other, lost = tmp_path / "other", tmp_path / "lost"
    other.mkdir()
    for name in ("images", "mirror"):  # docs/images.md
        subprocess.run(["cp", "-ax", daemon.state_dir / name, other], check=True)
    said(daemon, "rmi", IMAGE)
    daemon.overrides = {"images": {"additional_stores": [str(other), str(lost)]}}
    daemon.restart()
    (image,) = json.loads(said(daemon, "images", "-o", "json"))
    assert (image["tags"], image["additional_store"]) == (["docker.io/library/busybox:latest"], str(other))
    head, line = said(daemon, "images").splitlines()
    assert (head.split("  ")[-1].strip(), line.split()[-1]) == ("ADDITIONAL STORE", str(other))
    said(daemon, "run", "-d", "--name", "works", IMAGE, "sleep", "1000")
    assert said(daemon, "exec", "works", "echo", "on") == "on\n"
    said(daemon, "rm", "-f", "works")
    status, _, words = ended(daemon, "rmi", IMAGE)
    assert (status != 0, f"it is in the additional store {other}, which is only read" in words) == (
        True,
        True,
    )
    assert ended(daemon, "prune", "--all")[0] == 0
    missing = f"{lost}/mirror/image: no such file or directory"
    checks = json.loads(crisp(daemon, "doctor", "-o", "json").stdout)
    found = {one["name"]: (one["verdict"], one["found"]) for one in checks if "additional" in one["name"]}
    assert found == {
        f"additional store {other}": ("ok", "1 images, 1 layers"),
        f"additional store {lost}": ("warning", f"{missing}; usable: 0 images, 0 layers"),
    }
    answer = daemon.runtime().Status(cri_pb2.StatusRequest(verbose=True), timeout=CALL_LIMIT)
    conditions = {one.type: (one.status, one.message) for one in answer.status.conditions}
    assert conditions["AdditionalStoresUsable"] == (False, f"{lost}: {missing}")
    assert conditions["RuntimeReady"][0]
    assert json.loads(answer.info["additionalStores"])[str(other)]["images"] == 1
    assert [path.name for path in (daemon.state_dir / "images/layers").iterdir()] == []


def test_a_directory_for_images_is_one_daemons_and_is_never_made(daemon: Daemon, disk: Path) -> None:
    said(daemon, "pull", "-q", IMAGE)
    assert layers(disk)
    other = Daemon(directory=daemon.directory / "other")
    other.directory.mkdir()
    other.overrides = daemon.overrides
    with pytest.raises(RuntimeError, match=f"image directory {disk} is in use by process"):
        other.start()
    other._forget()
    other.overrides = {"images": {"directory": str(daemon.directory / "not-mounted")}}
    with pytest.raises(RuntimeError, match="not-mounted does not exist: make it, or mount the disk"):
        other.start()
    other._forget()
    assert not (daemon.directory / "not-mounted").exists()
    other.purge()
    assert json.loads(said(daemon, "images", "-o", "json"))
