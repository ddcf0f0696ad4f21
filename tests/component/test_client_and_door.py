"""The client, the door and the binding over a real unix socket and real gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from api.binding import bind
from api.client import MESSAGE_LIMIT, AsyncClient, connect, connect_async
from api.door import Door
from api.image_service import ImageService
from api.proto import admin_pb2, cri_pb2
from api.unbuilt import UNBUILT
from oci.errors import Absent, Busy, CrispError, Deadline, Full, Internal, Unsupported
from oci.registry_auth import Credentials
from shim.records import ImageRecord
from tests.machine import PATIENCE
from tests.unit.api import doubles, records

LONG_NAME = "ü\n" * 100_000


class Images(doubles.Images):
    error: Exception = Absent("no such image")

    def __init__(self, held: list[ImageRecord]) -> None:
        super().__init__(held=held)
        self.left = asyncio.Event()

    async def pull(self, reference: str, credentials: Credentials | None = None, **_: Any) -> ImageRecord:
        if reference == "hangs":
            try:
                await asyncio.Event().wait()
            finally:
                self.left.set()
        raise self.error


class Events:
    """A service with a stream: only what the test calls."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def events(self, request: admin_pb2.EventsRequest) -> AsyncGenerator[admin_pb2.Event, None]:
        try:
            for number in (1, 2):
                yield admin_pb2.Event(sequence=number)
            if request.realm == "full":
                raise Full("too slow")
            await asyncio.Event().wait()
        finally:
            self.closed.set()

    def __getattr__(self, name: str) -> Callable[[Any], Awaitable[Any]]:
        async def refuse(_request: Any) -> Any:
            raise Internal(f"{name} is not asked for here")

        return refuse


@asynccontextmanager
async def serving(
    path: Path, images: Images, events: Events, *, not_ready: str = ""
) -> AsyncIterator[AsyncClient]:
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", MESSAGE_LIMIT),
            ("grpc.max_send_message_length", MESSAGE_LIMIT),
        ]
    )
    door = Door(not_ready=lambda: not_ready)
    image = ImageService(images=images, check_handler=lambda _name: None)
    bind(server, cri_pb2.DESCRIPTOR.services_by_name["ImageService"], image, door=door, unbuilt=UNBUILT)
    runtime = cri_pb2.DESCRIPTOR.services_by_name["RuntimeService"]
    table = {f"RuntimeService/{method.name}": "in no test" for method in runtime.methods}
    bind(server, runtime, object(), door=door, unbuilt=table)
    bind(server, admin_pb2.DESCRIPTOR.services_by_name["Admin"], events, door=door, unbuilt={})
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    try:
        async with connect_async(path, timeout=20) as client:
            yield client
    finally:
        await server.stop(0)


def run(path: Path, work: Callable[[AsyncClient, Images, Events], Awaitable[None]], **options: Any) -> None:
    async def inside() -> None:
        images, events = Images(held=[records.image()]), Events()
        async with serving(path / "s", images, events, **options) as client:
            await work(client, images, events)

    asyncio.run(inside())


async def caught(call: Awaitable[object]) -> CrispError:
    with pytest.raises(CrispError) as error:
        await call
    return error.value


def pulling(name: str) -> cri_pb2.PullImageRequest:
    return cri_pb2.PullImageRequest(image=cri_pb2.ImageSpec(image=name))


def test_an_answer_of_almost_sixteen_mebibytes_arrives(tmp_path: Path) -> None:
    async def work(client: AsyncClient, images: Images, _events: Events) -> None:
        tags = tuple("t" * 1023 for _ in range(16 * 1024 - 200))
        images.held = [records.image(tags=tags)]
        answer = await client.image.ListImages(cri_pb2.ListImagesRequest())
        assert MESSAGE_LIMIT - (1 << 20) < answer.ByteSize() < MESSAGE_LIMIT
        assert len(answer.images[0].repo_tags) == len(tags)

    run(tmp_path, work)


ERRORS: Sequence[tuple[Exception, type[CrispError], str]] = [
    (Absent("no such image"), Absent, "no such image"),
    (Full("disk"), Full, "disk"),
    (Busy("r: refused", token="RegistryUnavailable"), Internal, "RegistryUnavailable: r: refused"),
]


@pytest.mark.parametrize(("raised", "kind", "message"), ERRORS)
def test_an_error_of_the_domain_arrives_as_its_kind(
    tmp_path: Path, raised: Exception, kind: type[CrispError], message: str
) -> None:
    async def work(client: AsyncClient, images: Images, _events: Events) -> None:
        images.error = raised
        error = await caught(client.image.PullImage(pulling("x")))
        assert (type(error), str(error)) == (kind, message)

    run(tmp_path, work)


def test_the_longest_and_strangest_message_still_brings_its_code(tmp_path: Path) -> None:
    async def work(client: AsyncClient, images: Images, _events: Events) -> None:
        images.error = Absent(f"layer {LONG_NAME}\udcff: gone")
        error = await caught(client.image.PullImage(pulling("x")))
        assert type(error) is Absent
        assert str(error).startswith("layer ü\nü")
        assert str(error).endswith("\\udcff: gone")

    run(tmp_path, work)


def test_what_is_not_built_says_so(tmp_path: Path) -> None:
    async def work(client: AsyncClient, _images: Images, _events: Events) -> None:
        with pytest.raises(Unsupported) as error:
            async for _ in client.runtime.StreamContainers(cri_pb2.StreamContainersRequest()):
                pass
        assert str(error.value) == "StreamContainers is not served: in no test"
        refused = await caught(client.runtime.CheckpointPod(cri_pb2.CheckpointPodRequest()))
        assert str(refused) == "CheckpointPod is not served: in no test"

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("PullImage", b"\x0a\x05ab", "wire format was corrupt"),
        ("PullImage", b"\x0a\x04\x0a\x02\xff\xfe", "bad utf-8"),
        ("StreamImages", b"\x0a\x05ab", "wire format was corrupt"),
    ],
)
def test_bytes_that_are_no_request_are_refused_as_the_caller_s_mistake(
    tmp_path: Path, name: str, data: bytes, why: str
) -> None:
    async def work(_client: AsyncClient, _images: Images, _events: Events) -> None:
        method = f"/runtime.v1.ImageService/{name}"
        async with grpc.aio.insecure_channel(f"unix:{tmp_path / 's'}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                if name.startswith("Stream"):
                    async for _ in channel.unary_stream(method)(data):
                        pass
                else:
                    await channel.unary_unary(method)(data)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        details = refused.value.details() or ""
        assert details.startswith(f"request: its {len(data)} bytes are no runtime.v1.{name}Request (")
        assert why in details

    run(tmp_path, work)


def test_before_recovery_nothing_is_answered(tmp_path: Path) -> None:
    async def work(client: AsyncClient, _images: Images, _events: Events) -> None:
        error = await caught(client.image.ListImages(cri_pb2.ListImagesRequest()))
        assert (type(error), str(error)) == (Busy, "recovering: one pod left")

    run(tmp_path, work, not_ready="one pod left")


def test_a_deadline_of_the_caller_ends_the_pull(tmp_path: Path) -> None:
    async def work(client: AsyncClient, images: Images, _events: Events) -> None:
        error = await caught(client.image.PullImage(pulling("hangs"), timeout=0.3))
        assert type(error) is Deadline
        async with asyncio.timeout(5 * PATIENCE):
            await images.left.wait()

    run(tmp_path, work)


def test_a_stream_arrives_and_ends_with_its_error(tmp_path: Path) -> None:
    async def work(client: AsyncClient, _images: Images, _events: Events) -> None:
        seen = []
        with pytest.raises(Full, match=r"^too slow$"):
            async for event in client.admin.Events(admin_pb2.EventsRequest(realm="full")):
                seen.append(event.sequence)
        assert seen == [1, 2]

    run(tmp_path, work)


def test_a_stream_is_closed_when_its_reader_leaves(tmp_path: Path) -> None:
    async def work(client: AsyncClient, _images: Images, events: Events) -> None:
        stream = client.admin.Events(admin_pb2.EventsRequest())
        assert (await anext(aiter(stream))).sequence == 1
        await stream.aclose()  # type: ignore[attr-defined] - the client's streams are generators
        async with asyncio.timeout(5 * PATIENCE):
            await events.closed.wait()

    run(tmp_path, work)


def test_the_blocking_client_does_the_same(tmp_path: Path) -> None:
    def blocking() -> None:
        with connect(tmp_path / "s", timeout=20) as client:
            found = client.image.ListImages(cri_pb2.ListImagesRequest())
            assert [image.id for image in found.images] == [records.IMAGE_ID]
            with pytest.raises(Absent, match=r"^no such image$"):
                client.image.PullImage(pulling("x"))
            with pytest.raises(Deadline):
                client.image.PullImage(pulling("hangs"), timeout=0.3)
            events = client.admin.Events(admin_pb2.EventsRequest(realm="full"))
            assert next(iter(events)).sequence == 1
            with pytest.raises(Full, match=r"^too slow$"):
                list(events)

    async def work(_client: AsyncClient, _images: Images, _events: Events) -> None:
        await asyncio.to_thread(blocking)

    run(tmp_path, work)


def test_a_socket_that_nobody_serves_is_busy(tmp_path: Path) -> None:
    with connect(tmp_path / "nobody", timeout=5) as client, pytest.raises(Busy):
        client.image.ListImages(cri_pb2.ListImagesRequest())
