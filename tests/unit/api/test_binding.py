"""Each method of an interface is served or listed as unbuilt, never both, never neither."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from api import unbuilt
from api.admin_service import AdminService
from api.binding import bind, snake
from api.door import Door
from api.image_service import ImageService
from api.proto import admin_pb2, cri_pb2
from api.runtime_service import RuntimeService

ROOT = Path(__file__).resolve().parents[3]
CRI = cri_pb2.DESCRIPTOR.services_by_name
SERVED = {
    "RuntimeService": (CRI["RuntimeService"], RuntimeService),
    "ImageService": (CRI["ImageService"], ImageService),
    "Admin": (admin_pb2.DESCRIPTOR.services_by_name["Admin"], AdminService),
}


class Server:
    """What `bind` needs of grpc.aio.Server."""

    def __init__(self) -> None:
        self.handlers: list[Any] = []

    def add_generic_rpc_handlers(self, handlers: tuple[Any, ...]) -> None:
        self.handlers += handlers


def bound(servicer: object, table: dict[str, str]) -> Server:
    server: Any = Server()
    bind(server, CRI["ImageService"], servicer, door=Door(not_ready=lambda: ""), unbuilt=table)
    assert isinstance(server, Server)
    return server


@pytest.mark.parametrize("name", SERVED)
def test_every_method_is_either_served_or_in_the_table(name: str) -> None:
    service, servicer = SERVED[name]
    served = {method.name for method in service.methods if hasattr(servicer, snake(method.name))}
    listed = {key.partition("/")[2] for key in unbuilt.UNBUILT if key.startswith(f"{name}/")}
    assert served & listed == set()
    assert served | listed == {method.name for method in service.methods}


def test_a_service_has_no_method_that_the_interface_lacks() -> None:
    for service, servicer in SERVED.values():
        public = {name for name in vars(servicer) if not name.startswith("_")}
        assert public <= {snake(method.name) for method in service.methods}


def test_the_table_names_only_calls_of_the_interface() -> None:
    known = {f"{service.name}/{method.name}" for service in CRI.values() for method in service.methods}
    assert set(unbuilt.UNBUILT) <= known
    assert all(told and told == told.rstrip(".") for told in unbuilt.UNBUILT.values())


def test_the_page_for_users_is_made_from_the_table() -> None:
    assert (ROOT / "docs/rpcs.md").read_text() == unbuilt.document()


def test_a_forgotten_method_stops_the_start() -> None:
    with pytest.raises(
        ValueError, match=r"^ImageService/ListImages is neither served nor listed as unbuilt$"
    ):
        bound(object(), {})


def test_a_method_that_is_served_cannot_be_listed_as_unbuilt() -> None:
    table = {f"ImageService/{method.name}": "no" for method in CRI["ImageService"].methods}
    with pytest.raises(ValueError, match=r"^ImageService/ListImages is served and listed as unbuilt$"):
        bound(ImageService, table)


def test_every_handler_has_the_shape_of_its_method() -> None:
    server = bound(ImageService, unbuilt.UNBUILT)
    for method in CRI["ImageService"].methods:
        (generic,) = server.handlers
        handler = generic.service(SimpleNamespace(method=f"/runtime.v1.ImageService/{method.name}"))
        assert handler.response_streaming == method.server_streaming
        assert handler.request_deserializer(b"").DESCRIPTOR is method.input_type


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("RunPodSandbox", "run_pod_sandbox"),
        ("Version", "version"),
        ("Import", "import_"),
        ("ImageFsInfo", "image_fs_info"),
    ],
)
def test_a_method_is_named_as_python_names_it(name: str, expected: str) -> None:
    assert snake(name) == expected
