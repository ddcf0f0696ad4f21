from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from api.admin_service import AdminService
from api.ports import DaemonInfo
from api.proto import admin_pb2
from config.effective import Row
from oci.errors import Absent, BadInput, Internal
from oci.features import HandlerFeatures, RuntimeVersion
from oci.registry_auth import Credentials
from oci.workload import ContainerId, PodId
from shim.doctor import Check, Verdict
from shim.images.progress import LayerProgress, Phase, PullProgress
from shim.paths import Paths
from shim.records import ContainerRecord, ContainerState, ImageRecord, PodRecord, PodState
from shim.runtimes.table import Handler, HandlerTable, InvalidHandler
from shim.state.codec import encode
from shim.state.store import Change
from tests.unit.api import doubles, records, requests

Answer = TypeVar("Answer")
OTHER = "e" * 64


class Records:
    def __init__(self, pods: list[PodRecord], containers: list[ContainerRecord]) -> None:
        self.pods: Mapping[PodId, PodRecord] = {pod.id: pod for pod in pods}
        self.containers: Mapping[ContainerId, ContainerRecord] = {one.id: one for one in containers}
        self.listeners: list[Callable[[Change], None]] = []

    def subscribe(self, listener: Callable[[Change], None], /) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)


INFO = DaemonInfo(
    version="1.2.3",
    pid=99,
    started_at=1,
    ready_at=2,
    state_directory="/var/lib/crisp",
    run_directory="/run/crisp",
    realms={"kubelet": ("/run/crisp/crisp.sock",), "run": ("/run/crisp/run.sock",)},
)
TABLE = HandlerTable(
    handlers={
        "runc": Handler(
            name="runc",
            kind="oci",
            binary=Path("/usr/sbin/runc"),
            root=Path("/run/crisp/runc"),
            monitor=Path("/usr/bin/conmon"),
            monitor_version="2.1.6",
            version=RuntimeVersion(name="runc", version="1.1.5"),
            features=HandlerFeatures(user_namespaces=True),
            source="found on PATH",
        )
    },
    invalid={"kata": InvalidHandler(name="kata", reason="no such file", source="/etc/c.toml:3")},
    default="runc",
    default_source="the first usable one",
)


async def doctor(handler: str) -> list[Check]:
    if handler:
        return [Check(area=f"handler {handler}", name="probe", verdict=Verdict.PROBLEM, found="no such file")]
    return [Check(area="kernel", name="overlayfs", verdict=Verdict.WARNING, found="6.1", advice="upgrade")]


class Handlers:
    table = TABLE

    def former(self) -> list[Handler]:
        return [replace(TABLE.handlers["runc"], source="started with it", definition="old")]

    def began_with(self, name: str, definition: str) -> Handler | None:
        return TABLE.handlers["runc"]


def service(
    state_dir: Path = Path("/s"), *, images: Any = None, store: Records | None = None, upkeep: Any = None
) -> AdminService:
    return AdminService(
        records=store
        or Records(
            [
                records.pod(),
                records.pod(id=PodId(OTHER), realm="run", state=PodState.CREATING, fault="CNI DEL owed"),
            ],
            [records.container(), records.container(id=ContainerId("f" * 64), realm="run")],
        ),
        paths=Paths(state_dir=state_dir, run_dir=Path("/r")),
        images=images or doubles.Images(),
        upkeep=upkeep,
        handlers=Handlers(),
        daemon=lambda: INFO,
        settings=lambda: (Row(key="log.level", value='"info"', origin="default"),),
        doctor=doctor,
    )


def answer(call: Coroutine[Any, Any, Answer]) -> Answer:
    return asyncio.run(call)


def test_the_daemon_says_where_it_listens_and_what_it_holds() -> None:
    found = answer(service().daemon(admin_pb2.DaemonRequest()))
    assert found.resident_bytes > 1 << 20
    found.resident_bytes = 0
    assert found == admin_pb2.DaemonResponse(
        version="1.2.3",
        pid=99,
        started_at=1,
        ready_at=2,
        state_directory="/var/lib/crisp",
        run_directory="/run/crisp",
        realms=[
            admin_pb2.Realm(name="kubelet", sockets=["/run/crisp/crisp.sock"]),
            admin_pb2.Realm(name="run", sockets=["/run/crisp/run.sock"]),
        ],
    )


def test_objects_of_every_realm_are_listed_half_made_ones_too() -> None:
    every = answer(service().objects(admin_pb2.ObjectsRequest()))
    run = answer(service().objects(admin_pb2.ObjectsRequest(realm="run")))
    assert [(pod.realm, pod.state, pod.fault) for pod in every.pods] == [
        ("kubelet", "ready", ""),
        ("run", "creating", "CNI DEL owed"),
    ]
    assert [container.realm for container in every.containers] == ["kubelet", "run"]
    assert ([pod.id for pod in run.pods], len(run.containers)) == ([OTHER], 1)


def test_a_pod_and_a_container_are_told_whole() -> None:
    found = answer(service().objects(admin_pb2.ObjectsRequest(realm="kubelet")))
    pod, container = requests.pod_config(), requests.container_config()
    assert found == admin_pb2.ObjectsResponse(
        pods=[
            admin_pb2.Pod(
                id=requests.POD_ID,
                realm="kubelet",
                namespace="shop",
                name="web",
                uid="u-1",
                attempt=2,
                state="ready",
                created_at=11,
                handler="crun",
                addresses=["10.1.0.5", "fd00::5"],
                labels=pod.labels,
                annotations=pod.annotations,
            )
        ],
        containers=[
            admin_pb2.Container(
                id=requests.CONTAINER_ID,
                pod_id=requests.POD_ID,
                realm="kubelet",
                name="nginx",
                attempt=3,
                state="running",
                created_at=21,
                started_at=22,
                image="nginx:1",
                image_id=records.IMAGE_ID,
                handler="crun",
                pid=42,
                log_path="/var/log/pods/shop_web_u-1/nginx/3.log",
                labels=container.labels,
                annotations=container.annotations,
            )
        ],
    )


def test_a_container_that_ended_has_no_pid() -> None:
    store = Records([], [records.container(state=ContainerState.EXITED, finished_at=5)])
    found = answer(service(store=store).objects(admin_pb2.ObjectsRequest()))
    assert [container.pid for container in found.containers] == [0]


def test_inspect_finds_a_pod_by_the_beginning_of_its_id() -> None:
    found = answer(service().inspect(admin_pb2.InspectRequest(id=requests.POD_ID[:6])))
    assert (found.kind, found.realm, found.id, found.directory, found.spec) == (
        "pod",
        "kubelet",
        requests.POD_ID,
        f"/s/pods/{requests.POD_ID}",
        "",
    )
    assert json.loads(found.record) == encode(records.pod())
    assert json.loads(found.request) == encode(records.pod().spec)


def test_inspect_reads_the_configuration_that_the_runtime_got(tmp_path: Path) -> None:
    directory = tmp_path / "containers" / requests.CONTAINER_ID
    request = admin_pb2.InspectRequest(id=requests.CONTAINER_ID, realm="kubelet")
    before = answer(service(tmp_path).inspect(request))
    directory.mkdir(parents=True)
    (directory / "config.json").write_text('{"ociVersion": "1.0.2"}')
    after = answer(service(tmp_path).inspect(request))
    assert (before.spec, after.spec) == ("", '{"ociVersion": "1.0.2"}')


@pytest.mark.parametrize(
    ("id_", "realm", "kind"),
    [("", "", BadInput), ("../x", "", Absent), (OTHER, "kubelet", Absent), ("0" * 64, "", Absent)],
)
def test_inspect_refuses_what_it_cannot_find(id_: str, realm: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        answer(service().inspect(admin_pb2.InspectRequest(id=id_, realm=realm)))


def test_events_of_one_realm_are_followed_until_the_watcher_leaves() -> None:
    store = Records([], [])

    async def watch() -> list[tuple[int, str]]:
        request = admin_pb2.EventsRequest(realm="run")
        async with aclosing(service(store=store).events(request)) as events:
            first = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0)
            (listener,) = store.listeners
            listener(Change(1, None, records.pod()))
            listener(Change(2, None, records.pod(realm="run")))
            listener(Change(3, records.pod(realm="run"), None))
            return [(event.sequence, event.state) for event in (await first, await anext(events))]

    assert asyncio.run(watch()) == [(2, "ready"), (3, "removed")]
    assert store.listeners == []


def test_import_from_a_store_tells_what_came_and_what_did_not() -> None:
    images = doubles.Images()
    request = admin_pb2.ImportRequest(path="/var/lib/docker", kind="docker", images=["a"], dry_run=True)
    response = answer(service(images=images).import_(request))
    assert response == admin_pb2.ImportResponse(
        images=[
            admin_pb2.ImportedImage(id="sha256:2", names=["r.example/a:1"], size=5, digest="sha256:1"),
            admin_pb2.ImportedImage(names=["b:1"], digest="sha256:3", problem="layer missing"),
        ]
    )
    assert images.calls == [("import_store", "docker", Path("/var/lib/docker"), ("a",), True)]
    for bad, words in (
        (admin_pb2.ImportRequest(path="/p", kind="docker", names=["a"]), "^names: images of a store keep"),
        (admin_pb2.ImportRequest(path="/p", images=["a"]), "^images, dry_run: are for stores"),
    ):
        with pytest.raises(BadInput, match=words):
            answer(service().import_(bad))


def test_import_takes_an_absolute_path_and_names() -> None:
    images = doubles.Images()
    request = admin_pb2.ImportRequest(path="/tmp/image.tar", names=["busybox:1"])
    found = answer(service(images=images).import_(request))
    assert images.calls == [("import", Path("/tmp/image.tar"), ("busybox:1",))]
    assert found == admin_pb2.ImportResponse(
        images=[admin_pb2.ImportedImage(id=records.IMAGE_ID, names=["docker.io/library/nginx:1"], size=1000)]
    )
    with pytest.raises(BadInput, match=r"^path: 'image.tar' is not an absolute path$"):
        answer(service(images=images).import_(admin_pb2.ImportRequest(path="image.tar")))


def progress(reference: str) -> PullProgress:
    return PullProgress(
        reference=reference,
        stage="layers",
        endpoint="https://mirror.example",
        credential_source="request",
        origin="/etc/hosts.toml:3",
        started_at=1,
        received=5,
        total=10,
        rate=2.5,
        layers=(LayerProgress(digest="sha256:1", phase=Phase.DOWNLOADING, received=5, total=10),),
    )


class SlowImages(doubles.Images):
    """A pull that ends when it is told to."""

    def __init__(self, result: ImageRecord | Exception) -> None:
        super().__init__(running=(progress("docker.io/library/other:1"), progress("nginx")))
        self.go = asyncio.Event()
        self.result = result
        self.cancelled = False

    async def pull(self, reference: str, credentials: Credentials | None = None, **_: Any) -> ImageRecord:
        self.calls.append(("pull", reference, credentials))
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


async def pull(images: SlowImages, *, leave: bool = False) -> list[admin_pb2.PullProgress]:
    request = admin_pb2.PullRequest(reference="nginx", username="me", password="p")
    seen = []
    async with aclosing(service(images=images).pull(request)) as pictures:
        async for picture in pictures:
            seen.append(picture)
            images.go.set()
            if leave:
                images.go.clear()
                break
    return seen


def test_a_pull_shows_its_own_progress_and_ends_with_the_image() -> None:
    async def run() -> None:
        images = SlowImages(records.image())
        seen = await pull(images)
        assert images.calls == [("pull", "nginx", Credentials(username="me", password="p"))]
        assert seen == [
            admin_pb2.PullProgress(
                stage="layers",
                endpoint="https://mirror.example",
                origin="/etc/hosts.toml:3",
                credentials="request",
                received=5,
                total=10,
                rate=2.5,
                layers=[
                    admin_pb2.LayerProgress(digest="sha256:1", phase="downloading", received=5, total=10)
                ],
            ),
            admin_pb2.PullProgress(stage="done", image_id=records.IMAGE_ID),
        ]

    asyncio.run(run())


def test_of_a_pull_that_is_over_at_once_the_source_is_told_with_the_image() -> None:
    ended = replace(progress("nginx"), stage="done", layers=())
    images = SlowImages(records.image())
    images.running = (ended, progress("docker.io/library/other:1"))
    images.go.set()
    assert asyncio.run(pull(images)) == [
        admin_pb2.PullProgress(
            stage="done",
            endpoint="https://mirror.example",
            origin="/etc/hosts.toml:3",
            credentials="request",
            received=5,
            total=10,
            rate=2.5,
            image_id=records.IMAGE_ID,
        )
    ]


def test_a_pull_that_fails_raises_its_own_error() -> None:
    async def run() -> None:
        with pytest.raises(Internal, match=r"^registry: 500$"):
            await pull(SlowImages(Internal("registry: 500")))

    asyncio.run(run())


def test_a_watcher_that_leaves_leaves_the_pull() -> None:
    async def run() -> None:
        images = SlowImages(records.image())
        await pull(images, leave=True)
        assert images.cancelled

    asyncio.run(run())


def test_the_rest_is_told_as_it_is_known() -> None:
    admin = service()
    request = admin_pb2.ExplainPullRequest(reference="nginx", namespace="team")
    assert list(answer(admin.explain_pull(request)).lines) == ["would ask for nginx for team"]
    assert answer(admin.effective_config(admin_pb2.EffectiveConfigRequest())) == (
        admin_pb2.EffectiveConfigResponse(
            settings=[admin_pb2.Setting(key="log.level", value='"info"', origin="default")]
        )
    )
    assert answer(admin.doctor(admin_pb2.DoctorRequest())) == admin_pb2.DoctorResponse(
        checks=[
            admin_pb2.Check(
                area="kernel",
                name="overlayfs",
                verdict=admin_pb2.WARNING,
                found="6.1",
                advice="upgrade",
            )
        ]
    )


def test_a_handler_that_is_named_is_tried() -> None:
    tried = answer(service().doctor(admin_pb2.DoctorRequest(handler="kata")))
    assert [(one.area, one.name, one.found) for one in tried.checks] == [
        ("handler kata", "probe", "no such file")
    ]


def test_unusable_handlers_are_told_with_their_reason() -> None:
    found = answer(service().handlers(admin_pb2.HandlersRequest()))
    assert [
        (one.name, one.version, one.is_default, one.problem, one.pods, one.former) for one in found.handlers
    ] == [
        ("runc", "1.1.5", True, "", 2, False),
        ("runc", "1.1.5", False, "", 0, True),
        ("kata", "", False, "no such file", 0, False),
    ]
    assert found.handlers[0].features["user_namespaces"]
    assert not found.handlers[0].features["checkpoint"]
    assert found.default_origin == "the first usable one"
