"""CheckpointContainer: what is in the archive, that the container does not notice, and what is refused."""

from __future__ import annotations

import io
import json
import shutil
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from api.proto import cri_pb2
from tests.component.cri.client import Client
from tests.daemon import running
from tests.doubles import oci_runtime
from tests.doubles.oci_runtime import Plan
from tests.images.registry import Registry

SAVES, REFUSES, FAILS = "saves", "refuses", "fails"
PLANS = {
    SAVES: Plan(act="save"),
    REFUSES: Plan(act="refuse", words="no such thing in this kernel"),
    FAILS: Plan(act="fail", words="out of order"),
}


@pytest.fixture(scope="module")
def handlers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    real = Path(str(shutil.which("runc", path="/usr/sbin:/usr/bin")))
    tables = {}
    for name, plan in PLANS.items():
        directory = tmp_path_factory.mktemp(name)
        tables[f"handlers.{name}"] = {
            "binary": str(oci_runtime.install(directory, real, {"checkpoint": plan}))
        }
    return tables


@pytest.fixture
def own(
    prepared_machine: None, image_registry: Registry, handlers: dict[str, dict[str, Any]]
) -> Iterator[Client]:
    with running(image_registry, overrides=handlers) as daemon:
        made = Client(daemon)
        made.pull()
        yield made


def checkpoint(client: Client, container: str, location: Path | str) -> grpc.RpcError | None:
    request = cri_pb2.CheckpointContainerRequest(container_id=container, location=str(location), timeout=60)
    try:
        client.call("CheckpointContainer", request)
    except grpc.RpcError as error:
        return error
    return None


def run(client: Client, handler: str) -> str:
    # Without a cgroup parent: this daemon's groups are removed by its own fixture.
    return client.run(client.run_pod(handler=handler, host_network=True, cgroup_parent=""))


def test_the_archive_has_memory_configuration_and_what_was_changed(own: Client, tmp_path: Path) -> None:
    container = run(own, SAVES)
    own.exec(container, "sh", "-c", "echo kept >/written; rm /etc/group")
    pid, before = own.pid(container), own.status(container).status
    location = tmp_path / "checkpoint.tar"
    assert checkpoint(own, container, location) is None
    assert (own.pid(container), own.status(container).status) == (pid, before)
    assert stat.S_IMODE(location.stat().st_mode) == 0o600
    with tarfile.open(location) as archive:
        content = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    assert content["checkpoint/pages-1.img"] == b"memory"
    assert json.loads(content["spec.dump"])["process"]["args"] == ["sleep", "1000"]
    description = json.loads(content["config.dump"])
    assert (description["id"], description["name"], description["rootfsImage"]) == (
        container, "main", before.image_id,
    )  # fmt: skip
    assert json.loads(content["deleted.files"]) == ["etc/group"]
    with tarfile.open(fileobj=io.BytesIO(content["rootfs-diff.tar"])) as layer:
        assert layer.extractfile("written").read() == b"kept\n"  # type: ignore[union-attr]
        assert "etc/group" not in layer.getnames()
    bundle = Path(json.loads(own.status(container, verbose=True).info["info"])["bundle"])
    assert not (bundle / "checkpoint").exists()

    again = checkpoint(own, container, location)
    assert again is not None
    assert (again.code(), again.details()) == (
        grpc.StatusCode.INVALID_ARGUMENT, f"location: {location} exists",
    )  # fmt: skip

    for handler, code, words in (
        (REFUSES, grpc.StatusCode.FAILED_PRECONDITION, "criu: (x.c:1): no such thing in this kernel"),
        (FAILS, grpc.StatusCode.INTERNAL, "out of order"),
    ):
        other = run(own, handler)
        pid = own.pid(other)
        error = checkpoint(own, other, tmp_path / handler)
        assert error is not None
        assert (error.code(), words in error.details()) == (code, True)
        assert own.pid(other) == pid
        assert own.exec(other, "echo", "alive") == "alive\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.tar"]


def test_what_cannot_be_is_refused_by_its_field(client: Client, tmp_path: Path) -> None:
    container = client.run(client.run_pod(host_network=True))
    cases = {
        ("f" * 64, tmp_path / "a"): (grpc.StatusCode.NOT_FOUND, "container "),
        (container, "a.tar"): (grpc.StatusCode.INVALID_ARGUMENT, "location: "),
        (container, ""): (grpc.StatusCode.INVALID_ARGUMENT, "location: "),
        (container, tmp_path / "none" / "a"): (grpc.StatusCode.INVALID_ARGUMENT, "location: "),
    }
    for (id_, location), (code, beginning) in cases.items():
        error = checkpoint(client, id_, location)
        assert error is not None
        assert (error.code(), error.details()[: len(beginning)]) == (code, beginning)
    client.stop(container)
    error = checkpoint(client, container, tmp_path / "a")
    assert error is not None
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize("handler", ["runc", "crun"])
def test_the_real_runtime_saves_or_says_why_not_and_the_container_runs_on(
    client: Client, tmp_path: Path, handler: str
) -> None:
    """Debian 12's criu knows neither every kernel nor every machine; where it works there is an archive."""
    container = client.run(client.run_pod(handler=handler))
    pid, before = client.pid(container), client.status(container).status
    location = tmp_path / "checkpoint.tar"
    error = checkpoint(client, container, location)
    if error is None:
        with tarfile.open(location) as archive:
            assert any(name.startswith("checkpoint/pages-") for name in archive.getnames())
    else:
        assert error.code() in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNIMPLEMENTED)
        assert "criu" in error.details() or "cannot checkpoint" in error.details()
        assert not location.exists()
    assert (client.pid(container), client.status(container).status) == (pid, before)
    assert client.exec(container, "echo", "alive") == "alive\n"
