"""`crisp logs`, with and without a daemon."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.proto import admin_pb2
from cli.main import main
from oci.errors import Busy, CrispError, Deadline, Internal
from tests.unit.cli.service import Service, container, not_there, pod

Capture = pytest.CaptureFixture[str]


def line(second: int, text: str, *, stream: str = "stdout") -> str:
    return f"2026-01-31T12:00:{second:02d}.000000000Z {stream} F {text}\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The log of default/web/nginx in its second attempt."""
    directory = tmp_path / "pods/default_web_uid/nginx"
    directory.mkdir(parents=True)
    (directory / "0.log").write_text(line(1, "before"))
    (directory / "1.log").write_text(line(2, "out") + line(3, "err", stream="stderr") + line(4, "last"))
    return directory / "1.log"


@pytest.fixture
def service(log: Path, tmp_path: Path) -> Service:
    web = pod("a", "default", "web")
    nginx = container("1", web, "nginx", attempt=1, log_path=str(log))
    silent = container("2", web, "silent")
    return Service(
        objects=admin_pb2.ObjectsResponse(pods=[web], containers=[nginx, silent]),
        state_directory=str(tmp_path / "state"),
    )


def test_output_and_errors_go_where_they_went(service: Service, capsys: Capture) -> None:
    assert service.run("logs", "web/nginx") == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("out\nlast\n", "err\n")


def test_parts_are_chosen(service: Service, capsys: Capture) -> None:
    assert service.run("logs", "--tail", "1", "-t", "web/nginx") == 0
    assert service.run("logs", "--previous", "web/nginx") == 0
    assert service.run("logs", "--since", "2026-01-31T12:00:04Z", "web/nginx") == 0
    assert service.run("logs", "--since", "1s", "web/nginx") == 0
    assert capsys.readouterr().out == "2026-01-31T12:00:04.000000000Z last\nbefore\nlast\n"
    assert service.run("logs", "--since", "yesterday", "web/nginx") == 2


def test_following_ends_with_the_container(service: Service, capsys: Capture) -> None:
    service.events.put(admin_pb2.Event(kind="container", id="1" * 64, state="running"))
    service.events.put(admin_pb2.Event(kind="container", id="1" * 64, state="exited"))
    assert service.run("logs", "-f", "web/nginx") == 0
    assert capsys.readouterr().out == "out\nlast\n"


def test_a_container_without_a_log_is_told(service: Service, capsys: Capture) -> None:
    assert service.run("logs", "web/silent") == 3
    assert "default/web/silent keeps no log" in capsys.readouterr().err


def without_daemon(tmp_path: Path, *arguments: str) -> int:
    config = tmp_path / "config.toml"
    config.write_text(f'state_dir = "{tmp_path}/state"\nrun_dir = "{tmp_path}/run"\n')
    pods = str(tmp_path / "pods")
    return main(["--config", str(config), "logs", "--dir", pods, *arguments], connector=not_there)


def test_without_a_daemon_logs_are_found_by_name(log: Path, tmp_path: Path, capsys: Capture) -> None:
    mine = tmp_path / "state/logs/run_mine_uid/sh/0.log"
    mine.parent.mkdir(parents=True)
    mine.write_text(line(5, "mine"))
    assert without_daemon(tmp_path, "web") == 0
    assert without_daemon(tmp_path, "-p", "default/web/nginx") == 0
    assert without_daemon(tmp_path, "run/mine") == 0
    assert capsys.readouterr().out == "out\nlast\nbefore\nmine\n"


@pytest.mark.parametrize(
    "error", [Busy("recovering"), Deadline("Objects: no answer in time"), Internal("broken")]
)
def test_a_daemon_in_trouble_is_no_hindrance(
    service: Service, tmp_path: Path, capsys: Capture, error: CrispError
) -> None:
    service.answers["Objects"] = error
    assert service.run("logs", "--dir", str(tmp_path / "pods"), "web") == 0
    assert capsys.readouterr().out == "out\nlast\n"


def test_what_nobody_knows_is_absent_and_the_places_are_told(tmp_path: Path, capsys: Capture) -> None:
    assert without_daemon(tmp_path, "other") == 3
    assert capsys.readouterr().err == (
        f"crisp: socket {tmp_path}/run/admin.sock does not exist: crispd is not running"
        f" (from {tmp_path}/config.toml); and no log of 'other' is below {tmp_path}/pods"
        f" or {tmp_path}/state/logs\n"
    )


def test_logs_of_what_the_daemon_has_forgotten_are_still_found(
    service: Service, tmp_path: Path, capsys: Capture
) -> None:
    service.objects = admin_pb2.ObjectsResponse()
    assert service.run("logs", "--dir", str(tmp_path / "pods"), "web") == 0
    assert capsys.readouterr().out == "out\nlast\n"
    assert service.run("logs", "--dir", str(tmp_path / "pods"), "other") == 3
    assert "no pod or container is called 'other'" in capsys.readouterr().err
