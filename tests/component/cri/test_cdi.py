"""CDI devices by field and by annotation, from files that come and change while the daemon runs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.component.cri.client import Client, cgroup_file
from tests.daemon import Daemon, running, warm_up
from tests.images.registry import Registry

ZERO = Path("/dev/zero").stat().st_rdev


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: tmp_path_factory.mktemp("cdi") / name for name in ("low", "high")}


@pytest.fixture(scope="module")
def with_cdi(prepared_machine: None, image_registry: Registry, places: dict[str, Path]) -> Iterator[Daemon]:
    overrides = {"containers": {"cdi_spec_dirs": [str(place) for place in places.values()]}}
    with running(image_registry, overrides=overrides, shared=True) as daemon:
        warm_up(daemon)
        Client(daemon).pull()
        yield daemon


@pytest.fixture
def client(with_cdi: Daemon, places: dict[str, Path]) -> Iterator[Client]:
    made = Client(with_cdi)
    made.pull()
    for place in places.values():
        place.mkdir()
    yield made
    with_cdi.remove_all_pods()
    for place in places.values():
        shutil.rmtree(place)
    with_cdi.remove_pod_groups()


def write(place: Path, devices: dict[str, Any], **edits: Any) -> None:
    (place / "a.json").write_text(
        json.dumps(
            {
                "cdiVersion": "1.0.0",
                "kind": "vendor.com/gpu",
                "devices": [{"name": key, "containerEdits": value} for key, value in devices.items()],
                "containerEdits": edits,
            }
        )
    )


def refusal(client: Client, pod: str, **wanted: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        client.create(pod, "refused", **wanted)
    error: Any = caught.value
    return error.code().name, error.details()


def test_every_kind_of_edit_reaches_the_container(
    client: Client, places: dict[str, Path], tmp_path: Path
) -> None:
    hook, told = tmp_path / "hook", tmp_path / "told"
    hook.write_text(f"#!/bin/sh\necho $1 $MARK > {told}\n")
    hook.chmod(0o755)
    (tmp_path / "library").write_text("vendor's\n")
    node = {"path": "/dev/gpu0", "hostPath": "/dev/zero", "permissions": "r", "fileMode": 0o604, "gid": 7}
    edits = {
        "env": ["GPU=0"],
        "deviceNodes": [node],
        "mounts": [{"hostPath": str(tmp_path), "containerPath": "/vendor/lib", "options": ["ro", "rbind"]}],
        "hooks": [
            {"hookName": "createRuntime", "path": str(hook), "args": ["hook", "runs"], "env": ["MARK=here"]}
        ],
    }
    write(places["low"], {"0": edits}, additionalGids=[4242])
    container = client.run_up(client.run_pod(), cdi_devices=("vendor.com/gpu=0",))
    pid = client.pid(container)
    root = Path(f"/proc/{pid}/root")

    seen = (root / "dev/gpu0").stat()
    assert (seen.st_rdev, seen.st_mode & 0o777, seen.st_gid) == (ZERO, 0o604, 7)
    rules = cgroup_file(pid, "devices", "devices.list").read_text().splitlines()
    assert (
        f"c {os.major(ZERO)}:{os.minor(ZERO)} r" in rules
        or f"c {os.major(ZERO)}:{os.minor(ZERO)} rwm" in rules
    )
    assert b"GPU=0" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert "4242" in next(
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Groups:")
    )
    assert (root / "vendor/lib/library").read_text() == "vendor's\n"
    assert " /vendor/lib ro," in Path(f"/proc/{pid}/mountinfo").read_text()
    assert told.read_text() == "runs here\n"
    assert list(client.status(container).status.user.linux.supplemental_groups) == [0, 10, 4242]


def test_an_annotation_asks_as_the_field_does(client: Client, places: dict[str, Path]) -> None:
    write(places["low"], {"0": {"env": ["GPU=0"]}, "1": {"env": ["OTHER=1"]}})
    annotations = {"cdi.k8s.io/plugin_0": "vendor.com/gpu=1,vendor.com/gpu=0"}
    container = client.run_up(client.run_pod(), annotations=annotations)
    environment = Path(f"/proc/{client.pid(container)}/environ").read_bytes().split(b"\0")

    assert {b"GPU=0", b"OTHER=1"} <= set(environment)


def test_files_that_come_and_change_count_at_once(client: Client, places: dict[str, Path]) -> None:
    pod = client.run_pod()
    asked = ("vendor.com/gpu=0",)
    assert refusal(client, pod, cdi_devices=asked)[0] == "INVALID_ARGUMENT"
    for n, place in enumerate(("low", "low", "high")):
        write(places[place], {"0": {"env": [f"TURN={n}"]}})
        container = client.run_up(pod, f"turn{n}", cdi_devices=asked)
        assert f"TURN={n}".encode() in Path(f"/proc/{client.pid(container)}/environ").read_bytes().split(
            b"\0"
        )
    (places["high"] / "a.json").unlink()
    (places["low"] / "a.json").write_text("{")
    code, words = refusal(client, pod, cdi_devices=asked)
    assert code == "INVALID_ARGUMENT"
    assert words.startswith("config.CDI_devices[0].name: no device 'vendor.com/gpu=0'; there is none")
    assert f"passed over: CDI specification {places['low']}/a.json: not JSON" in words


@pytest.mark.parametrize(
    ("edits", "code", "words"),
    [
        ({"intelRdt": {}}, "UNIMPLEMENTED", "intelRdt"),
        ({"deviceNodes": [{"path": "/dev/none-such"}]}, "INVALID_ARGUMENT", "CDI device node /dev/none-such"),
        (
            {"deviceNodes": [{"path": "/etc/passwd"}]},
            "INVALID_ARGUMENT",
            "/etc/passwd on the host is no device",
        ),
        ({"mounts": [{"hostPath": "/", "containerPath": "/proc/sys"}]}, "INVALID_ARGUMENT", "CDI mount"),
    ],
)
def test_what_cannot_be_given_is_refused_and_leaves_nothing(
    client: Client, places: dict[str, Path], edits: dict[str, Any], code: str, words: str
) -> None:
    write(places["low"], {"0": edits})
    found = refusal(client, client.run_pod(), cdi_devices=("vendor.com/gpu=0",))

    assert found[0] == code
    assert words in found[1]
    assert list((client.daemon.state_dir / "containers").iterdir()) == []
