"""The images that conformance stands on are what their names promise, and a registry hands them out whole."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.images import catalogue, layout
from tests.images.registry import Registry, write_hosts


def unpacked(image_layout: Path, name: str, target: Path, tmp_path: Path) -> Path:
    """The root file system of an image, by tools that are not ours."""
    copied = tmp_path / "copied"
    subprocess.run(
        ["skopeo", "copy", "--quiet", f"oci:{image_layout}:{name}", f"dir:{copied}"], check=True, timeout=60
    )
    manifest = json.loads((copied / "manifest.json").read_text())
    target.mkdir()
    for layer in manifest["layers"]:
        blob = copied / layer["digest"].partition(":")[2]
        subprocess.run(["tar", "--extract", "--gzip", "--file", blob, "--directory", target], check=True)
    return target


def inside(root: Path, *argv: str, uid: int = 0) -> str:
    done = subprocess.run(
        ["chroot", f"--userspec={uid}:{uid}", root, *argv],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return done.stdout


def test_the_registry_s_digests_are_the_layout_s(image_layout: Path, image_registry: Registry) -> None:
    names = layout.read_names(image_layout)
    told = {}
    for name in names:
        reference = f"docker://{image_registry.reference(name)}"
        answer = subprocess.run(
            ["skopeo", "inspect", "--raw", "--tls-verify=false", reference],
            capture_output=True,
            check=True,
            timeout=60,
        )
        told[name] = answer.stdout
    assert told == {
        name: layout.blob_path(image_layout, descriptor["digest"]).read_bytes()
        for name, descriptor in names.items()
    }


def test_the_two_pauses_differ_and_their_two_registries_agree(image_layout: Path) -> None:
    names = layout.read_names(image_layout)
    digests = {name: descriptor["digest"] for name, descriptor in names.items() if "/pause:" in name}
    assert digests["registry.k8s.io/pause:3.9"] == digests["k8s.gcr.io/pause:3.9"]
    assert digests["registry.k8s.io/pause:3.10"] == digests["k8s.gcr.io/pause:3.10"]
    assert len(set(digests.values())) == 2


def test_busybox_runs_and_has_what_conformance_calls(image_layout: Path, tmp_path: Path) -> None:
    root = unpacked(image_layout, catalogue.NGINX, tmp_path / "root", tmp_path)
    wanted = "sh top ls id hostname netstat ipcs pgrep pidof ping brctl touch sleep"
    found = inside(root, "/bin/sh", "-c", f"for name in {wanted}; do command -v $name; done")
    assert found.split() == [f"/bin/{name}" for name in wanted.split(" ")]
    assert inside(root, "/bin/id", "-nu", uid=65534) == "nobody\n"
    assert "key" in inside(root, "/bin/ipcs", "-m")


def test_nginx_accepts_its_configuration(image_layout: Path, tmp_path: Path) -> None:
    root = unpacked(image_layout, catalogue.NGINX, tmp_path / "root", tmp_path)
    os.mknod(root / "dev/stderr", 0o666 | 0o020000, os.makedev(1, 3))
    os.mknod(root / "dev/stdout", 0o666 | 0o020000, os.makedev(1, 3))
    (root / "dev/null").touch()
    inside(root, "/usr/sbin/nginx", "-t")  # fails with a code otherwise


@pytest.mark.parametrize("uid", [0, 1000])
def test_the_privilege_escalation_image_tells_its_effective_user(
    image_layout: Path, tmp_path: Path, uid: int
) -> None:
    root = unpacked(
        image_layout, "registry.k8s.io/e2e-test-images/nonewprivs:1.3", tmp_path / "root", tmp_path
    )
    assert inside(root, "/bin/sh", "-c", 'echo "Effective uid: $(/bin/effective-id -u)"', uid=uid) == (
        "Effective uid: 0\n"
    )


def test_the_image_of_the_predefined_group_knows_its_user(image_layout: Path, tmp_path: Path) -> None:
    name = f"{catalogue.STAGING}/test-image-predefined-group:latest"
    root = unpacked(image_layout, name, tmp_path / "root", tmp_path)
    groups = subprocess.run(
        ["chroot", root, "/bin/id", "-G", "default-user"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert groups.stdout.split() == ["1000", "50000"]


def test_a_host_is_pointed_at_the_registry(image_registry: Registry, tmp_path: Path) -> None:
    write_hosts(tmp_path, image_registry, ("gcr.io",))
    url = image_registry.url
    assert (tmp_path / "gcr.io" / "hosts.toml").read_text() == (
        f'server = "{url}"\n\n[host."{url}"]\ncapabilities = ["pull", "resolve"]\n'
    )
