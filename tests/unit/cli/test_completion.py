"""What the shell offers for a name that is being typed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from api.proto import admin_pb2, cri_pb2
from cli import completion
from cli.places import Options
from cli.session import Session
from oci.errors import Busy
from tests.unit.cli.service import Service, container, pod

WEB = pod("a", "default", "web")
EMPTY = pod("b", "default", "empty")
DNS = pod("c", "kube-system", "dns")


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    service = Service(
        objects=admin_pb2.ObjectsResponse(
            pods=[WEB, EMPTY, DNS], containers=[container("1", WEB, "nginx"), container("2", DNS, "server")]
        )
    )
    service.answers["ListImages"] = cri_pb2.ListImagesResponse(
        images=[cri_pb2.Image(id="1", repo_tags=["b:1", "a:1"]), cri_pb2.Image(id="2")]
    )
    service.answers["Handlers"] = admin_pb2.HandlersResponse(
        handlers=[
            admin_pb2.Handler(name=name, problem=why) for name, why in (("runc", ""), ("run", "broken"))
        ]
    )
    monkeypatch.setattr(completion, "Session", lambda options: Session(options, connector=service.connect))
    return service


def typed(**params: Any) -> Any:
    root = SimpleNamespace(params={"socket": "/fake/admin.sock", **params})
    return SimpleNamespace(find_root=lambda: root)


@pytest.mark.parametrize(
    ("incomplete", "expected"),
    [
        ("", [
            "default/empty", "default/web", "default/web/nginx", "dns/server", "kube-system/dns",
            "kube-system/dns/server", "web/nginx",
        ]),
        ("w", ["web", "web/nginx"]),
        ("default/w", ["default/web", "default/web/nginx"]),
        ("web/", ["web/nginx"]),
        ("x", []),
    ],
)  # fmt: skip
def test_every_way_to_write_a_name_is_completed(
    service: Service, incomplete: str, expected: list[str]
) -> None:
    assert completion.objects(typed(), incomplete) == expected


def test_where_a_container_is_wanted_only_pods_that_have_one_are_offered(service: Service) -> None:
    assert completion.containers(typed(), "default/") == ["default/web", "default/web/nginx"]


def test_namespaces_images_and_usable_handlers_are_offered(service: Service) -> None:
    assert completion.namespaces(typed(), "") == ["default", "kube-system"]
    assert completion.namespaces(typed(), "k") == ["kube-system"]
    assert completion.images(typed(), "") == ["a:1", "b:1"]
    assert completion.handlers(typed(), "r") == ["runc"]


def test_without_a_daemon_nothing_is_offered_and_nothing_said(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    for rpc in ("Objects", "Daemon", "Handlers"):
        service.answers[rpc] = Busy("socket: nobody answers")
    for offer in (completion.objects, completion.containers, completion.images, completion.handlers):
        assert offer(typed(), "") == []
    assert capsys.readouterr() == ("", "")


def test_the_daemon_that_was_typed_is_asked(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Options] = []

    def session(options: Options) -> Session:
        asked.append(options)
        return Session(options, connector=service.connect)

    monkeypatch.setattr(completion, "Session", session)
    completion.objects(typed(config_file=None, run_dir="/r"), "")
    assert asked == [Options(config="", run_dir="/r", socket="/fake/admin.sock")]
