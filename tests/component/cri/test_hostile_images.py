"""Images whose links point at the host: whatever comes of the container, nothing on the host changes.

Each path that the daemon or the runtime makes or mounts in a root file system is a link to a directory of the
host (the classes of CVE-2024-5154, CVE-2019-16884, CVE-2023-28642 and CVE-2024-21626).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from api.proto import admin_pb2, admin_pb2_grpc, cri_pb2
from tests.component.cri.client import SLEEP, Client
from tests.images import catalogue, layout
from tests.images.files import Entry, link

REFUSED = ("proc", "sys", "dev")
DIRECTORIES = ("etc", "dev/shm", "dev/pts", "proc/sys", "sys/fs", "run", "tmp", "job")
FILES = ("etc/mtab", "etc/resolv.conf", "etc/hosts", "etc/hostname", "dev/ptmx", "dev/console", "dev/null")
WORKDIR = "hostile.test/workdir:latest"


def name(path: str) -> str:
    return f"hostile.test/{path.replace('/', '-')}:latest"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of the host that must stay as it is."""
    made = tmp_path_factory.mktemp("hostile") / "host"
    made.mkdir()
    (made / "file").write_text("the host's own\n")
    return made


@pytest.fixture
def hostile(client: Client, host: Path) -> Iterator[Client]:
    """The images, imported as an operator would."""
    base = list(catalogue.images()[0].layers[0])
    images = [
        layout.Image(names=(name(path),), layers=[_with_link(base, path, str(host))])
        for path in (*REFUSED, *DIRECTORIES)
    ]
    images += [
        layout.Image(names=(name(path),), layers=[_with_link(base, path, f"{host}/made")]) for path in FILES
    ]
    images.append(layout.Image(names=(WORKDIR,), layers=[base], config={"WorkingDir": "/proc/self/fd/7"}))
    top = host.parent / "layout"
    if not top.exists():
        top.mkdir()
        layout.write(top, images)
    stub = admin_pb2_grpc.AdminStub(client.daemon.channel(client.daemon.admin_socket))
    stub.Import(admin_pb2.ImportRequest(path=str(top)), timeout=60)
    yield client
    client.daemon.remove_all_pods()
    for image in images:
        request = cri_pb2.RemoveImageRequest(image=cri_pb2.ImageSpec(image=image.names[0]))
        client.images.RemoveImage(request, timeout=30)


def _with_link(base: list[Entry], path: str, target: str) -> list[Entry]:
    kept = [one for one in base if one.path != path and not one.path.startswith(f"{path}/")]
    return [*kept, link(path, target)]


def seen(host: Path) -> dict[str, tuple[int, int, str]]:
    """Every file below, with what a change of it would change."""
    return {
        str(path.relative_to(host)): (path.lstat().st_mode, path.lstat().st_uid, path.read_text())
        for path in host.rglob("*")
    } | {".": (host.stat().st_mode, host.stat().st_uid, str(host.stat().st_mtime_ns))}


@pytest.mark.parametrize("handler", ["runc", "crun"])
def test_links_of_an_image_change_nothing_on_the_host(hostile: Client, host: Path, handler: str) -> None:
    before, pod = seen(host), hostile.run_pod(handler=handler)
    outcomes = {}
    for path in (*REFUSED, *DIRECTORIES, *FILES):
        command = ("sh", "-c", "echo changed > /etc/hosts; cd /job && echo changed > file; exec sleep 1000")
        try:
            container = hostile.create(
                pod, path.replace("/", "-"), command, image=name(path), members={"working_dir": "/job"}
            )
            hostile.start(container)
            outcomes[path] = "runs"
        except grpc.RpcError as error:
            outcomes[path] = error.code().name  # type: ignore[attr-defined]
        assert seen(host) == before, path
        assert f" {host}" not in Path("/proc/self/mountinfo").read_text(), path

    assert {path: outcomes[path] for path in REFUSED} == dict.fromkeys(REFUSED, "INVALID_ARGUMENT")
    assert "runs" in outcomes.values()  # the images are no more broken than their links


def test_an_image_cannot_start_in_a_descriptor_of_the_runtimes(hostile: Client) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        hostile.create(hostile.run_pod(), command=SLEEP, image=WORKDIR)
    assert "/proc/self/fd/7" in caught.value.details()  # type: ignore[attr-defined]
    assert caught.value.code().name == "INVALID_ARGUMENT"  # type: ignore[attr-defined]
