"""Which form new layers get: what mounts from the store's own file system, or what the configuration says."""

from __future__ import annotations

from pathlib import Path

import pytest

from oci.errors import Internal
from oci.workload import ContainerId
from shim.kernel import mount
from shim.kernel.probe import can_mount_erofs_from_file
from tests.component.images.rig import failure, files, opened, run, shown
from tests.doubles.registry import Registry, tar_of

ONE = tar_of({"one": b"1"})


@pytest.mark.parametrize(
    ("setting", "memory", "form"),
    [
        ("auto", False, "erofs"),
        ("auto", True, "directory"),  # EROFS takes no file of a tmpfs
        ("directory", False, "directory"),
        ("erofs", False, "erofs"),
    ],
)
def test_the_probe_chooses_the_form_and_the_configuration_can_force_it(
    double: Registry, home: Path, setting: str, memory: bool, form: str
) -> None:
    double.push("app", "1", [ONE])
    home.mkdir()
    if form == "erofs" and not can_mount_erofs_from_file(home):
        pytest.skip("this kernel does not mount EROFS from a file")

    async def story() -> None:
        async with opened(home, form=setting) as store:
            assert store.form == form
            record = await store.pull(double.reference("app:1"))
            files_of = {path.suffix for path in (home / "images/layers").iterdir()} - {".implied"}
            assert files_of == ({".tar", ".erofs"} if form == "erofs" else set())
            rootfs = await store.acquire_rootfs(ContainerId("c"), record.id, home)
            with shown(rootfs, home) as root:
                assert files(root) == {"one": b"1"}
            await store.release_rootfs(ContainerId("c"))

    if memory:
        mount.mount("none", home, "tmpfs", data="size=50m")
    try:
        run(story)
    finally:
        if memory:
            mount.unmount(home)


def test_a_form_that_cannot_be_mounted_is_told_at_the_start_and_when_it_is_wanted(
    double: Registry, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    double.push("app", "1", [ONE])
    home.mkdir()
    mount.mount("none", home, "tmpfs", data="size=50m")

    async def story() -> None:
        async with opened(home, form="erofs") as store:
            record = await store.pull(double.reference("app:1"))
            found = await failure(store.acquire_rootfs(ContainerId("c"), record.id, home))
            assert type(found) is Internal
            assert 'block device required (ENOTBLK): images.layer_form = "erofs" takes Linux 6.12' in str(
                found
            )

    try:
        run(story)
    finally:
        mount.unmount(home)
    assert [r.getMessage() for r in caplog.records if r.name == "shim.images.layers"] == [
        "images.layer_form is erofs, and the kernel cannot mount EROFS from a file of the store: "
        "containers will not start"
    ]
