"""`crisp run`: what it makes, shows, ends with and leaves."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from api.proto import admin_pb2, cri_pb2
from cli import commands
from oci.errors import Absent, Busy, CrispError, Duplicate, Internal
from oci.logline import Output
from tests.unit.cli.service import Service, container, pod

POD, CONTAINER = "a" * 64, "1" * 64
STAMP = b"2026-01-31T12:00:00.000000000Z stdout F "
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """A daemon with one image, whose containers print a line and end with 7."""
    service = Service(state_directory=str(tmp_path))

    def start(_: Any) -> cri_pb2.StartContainerResponse:
        request = service.requests("CreateContainer")[0]
        log = Path(request.sandbox_config.log_directory) / request.config.log_path
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(STAMP + b"hello\n")
        running = pod("a", "run", "x", realm="run")
        service.objects = admin_pb2.ObjectsResponse(
            pods=[running], containers=[container("1", running, "x", state="exited")]
        )
        return cri_pb2.StartContainerResponse()

    service.answers = {
        "ImageStatus": cri_pb2.ImageStatusResponse(image=cri_pb2.Image(id="i")),
        "RunPodSandbox": cri_pb2.RunPodSandboxResponse(pod_sandbox_id=POD),
        "CreateContainer": cri_pb2.CreateContainerResponse(container_id=CONTAINER),
        "StartContainer": start,
        "ContainerStatus": cri_pb2.ContainerStatusResponse(
            status=cri_pb2.ContainerStatus(id=CONTAINER, exit_code=7, reason="Error")
        ),
    }
    # What the watch sees before the start: a container that has not ended.
    created = pod("a", "run", "x", realm="run")
    service.objects = admin_pb2.ObjectsResponse(
        pods=[created], containers=[container("1", created, "x", state="created")]
    )
    service.events.put(admin_pb2.Event(kind="container", id=CONTAINER, state="exited"))
    return service


MADE = ["run.sock RunPodSandbox", "run.sock CreateContainer", "run.sock StartContainer"]
REMOVED = ["run.sock StopPodSandbox", "run.sock RemovePodSandbox"]


def test_it_shows_the_output_and_ends_as_the_container(service: Service, capsys: Capture) -> None:
    assert service.run("run", "busybox", "sh", "-c", "echo hello") == 7
    assert capsys.readouterr().out == "hello\n"
    assert service.changing() == [*MADE, "run.sock StopPodSandbox"]
    assert service.requests("CreateContainer")[0].config.args == ["sh", "-c", "echo hello"]


def test_with_rm_nothing_is_left(service: Service, tmp_path: Path) -> None:
    assert service.run("run", "--rm", "--handler", "crun", "busybox") == 7
    assert service.changing() == [*MADE, *REMOVED]
    assert service.requests("RunPodSandbox")[0].runtime_handler == "crun"
    assert list((tmp_path / "logs").iterdir()) == []


def test_detached_it_says_the_name_and_goes(service: Service, capsys: Capture) -> None:
    assert service.run("run", "-d", "--name", "web", "busybox") == 0
    assert capsys.readouterr().out == "run/web\n"
    assert service.changing() == MADE
    assert service.run("run", "-d", "--rm", "busybox") == 2


def test_logs_of_an_earlier_pod_of_that_name_are_not_its_output(
    service: Service, tmp_path: Path, capsys: Capture
) -> None:
    assert service.run("run", "--name", "web", "busybox") == 7
    kept = next((tmp_path / "logs").iterdir())
    (kept / "stale.log").touch()
    service.calls.clear()
    service.events.put(admin_pb2.Event(kind="container", id=CONTAINER, state="exited"))
    assert service.run("run", "--name", "web", "busybox") == 7
    assert capsys.readouterr().out == "hello\nhello\n"
    assert [entry.name for entry in kept.iterdir()] == ["busybox"]


@pytest.mark.parametrize("failing", ["CreateContainer", "StartContainer"])
def test_what_fails_half_way_is_removed(service: Service, capsys: Capture, failing: str) -> None:
    service.answers[failing] = Internal("no such file")
    assert service.run("run", "busybox") == 1
    assert service.changing() == [*MADE[: 2 + (failing == "StartContainer")], *REMOVED]
    assert capsys.readouterr().err == "crisp: no such file\n"


def test_what_cannot_be_removed_again_is_named(service: Service, capsys: Capture) -> None:
    service.answers |= {"CreateContainer": Internal("full disk"), "RemovePodSandbox": Internal("stuck")}
    assert service.run("run", "--name", "web", "busybox") == 1
    assert capsys.readouterr().err == (
        "crisp: run/web could not be removed: stuck; `crisp rm -f run/web`\ncrisp: full disk\n"
    )


def test_a_network_that_cannot_be_given_back_does_not_change_the_status(
    service: Service, capsys: Capture
) -> None:
    service.answers["StopPodSandbox"] = Internal("iptables: busy")
    assert service.run("run", "--name", "web", "busybox") == 7
    assert capsys.readouterr().err == (
        "crisp: run/web keeps its network: iptables: busy; `crisp stop run/web`\n"
    )


def test_a_pod_that_was_not_made_is_not_removed(service: Service) -> None:
    service.answers["RunPodSandbox"] = Internal("no network")
    assert service.run("run", "busybox") == 1
    assert service.changing() == MADE[:1]


def test_without_a_network_it_is_said_how_to_get_one(service: Service, capsys: Capture) -> None:
    condition = cri_pb2.RuntimeCondition(type="NetworkReady", status=False)
    service.answers |= {
        "RunPodSandbox": Busy("no CNI configuration"),
        "Status": cri_pb2.StatusResponse(status=cri_pb2.RuntimeStatus(conditions=[condition])),
    }
    assert service.run("run", "busybox") == 4
    assert capsys.readouterr().err == (
        "crisp: no CNI configuration\n"
        "use --host-network, or let Crisp make a network: `builtin = true` in the table [network] of"
        " /etc/crisp/config.toml, and restart crispd\n"
    )
    assert service.run("run", "--host-network", "busybox") == 4
    assert capsys.readouterr().err == "crisp: no CNI configuration\n"


def test_a_name_that_is_taken_is_told_with_what_to_do(service: Service, capsys: Capture) -> None:
    service.answers["RunPodSandbox"] = Duplicate("pod: exists")
    service.objects = admin_pb2.ObjectsResponse(pods=[pod("a", "run", "web", realm="run", created_at=1)])
    assert service.run("run", "--name", "web", "busybox") == 1
    assert service.changing() == MADE[:1]
    error = capsys.readouterr().err
    assert error.startswith("crisp: run/web exists already, ")
    assert error.endswith(" old: remove it with `crisp rm run/web` or choose another --name\n")


@pytest.mark.parametrize(
    ("policy", "there", "pulls"),
    [("missing", True, 0), ("missing", False, 1), ("always", True, 1), ("never", True, 0)],
)
def test_an_image_is_pulled_when_it_is_wanted(service: Service, policy: str, there: bool, pulls: int) -> None:
    if not there:
        service.answers["ImageStatus"] = cri_pb2.ImageStatusResponse()
    service.answers["Pull"] = lambda _: iter([admin_pb2.PullProgress(image_id="i")])
    assert service.run("run", "-q", "--pull", policy, "busybox") == 7
    assert len(service.requests("Pull")) == pulls


def test_without_the_image_nothing_is_made(service: Service, capsys: Capture) -> None:
    service.answers["ImageStatus"] = cri_pb2.ImageStatusResponse()
    assert service.run("run", "--pull", "never", "busybox") == 3
    service.answers["Pull"] = Absent("image busybox: the registry has none of that name")
    assert service.run("run", "busybox") == 3
    assert service.requests("RunPodSandbox") == []


def interrupting(then: Any) -> Callable[[Any], Any]:
    """An answer during whose first call the person presses Ctrl-C."""
    pressed = False

    def answer(_: Any) -> Any:
        nonlocal pressed
        if not pressed:
            pressed = True
            raise KeyboardInterrupt
        return then

    return answer


@pytest.mark.parametrize("during", ["RunPodSandbox", "CreateContainer", "StartContainer"])
def test_an_interrupt_during_the_start_leaves_nothing(service: Service, during: str) -> None:
    service.answers[during] = interrupting(service.answers[during])
    assert service.run("run", "busybox") == 130
    assert service.changing()[-2:] == REMOVED
    assert service.requests("StopPodSandbox") == [cri_pb2.StopPodSandboxRequest(pod_sandbox_id=POD)]
    if during == "RunPodSandbox":  # the same request joins what the daemon goes on with
        first, second = service.requests("RunPodSandbox")
        assert first == second


def pressing_at_first_output(write: Callable[[Iterable[Output]], None]) -> Callable[[Iterable[Output]], None]:
    """`write` with a person who presses Ctrl-C as soon as there is something to see."""

    def pressed(outputs: Iterable[Output]) -> Iterator[Output]:
        for number, output in enumerate(outputs):
            yield output
            if number == 0:
                signal.raise_signal(signal.SIGINT)

    return lambda outputs: write(pressed(outputs))


def test_interrupts_stop_then_kill_and_the_status_is_the_container_s(
    service: Service, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.events.get()  # it runs on until it is killed
    graces = []

    def stop(request: Any) -> cri_pb2.StopContainerResponse:
        graces.append(request.timeout)
        if request.timeout:
            signal.raise_signal(signal.SIGINT)
        else:
            service.events.put(admin_pb2.Event(kind="container", id=CONTAINER, state="exited"))
        return cri_pb2.StopContainerResponse()

    started = service.answers["StartContainer"]

    def start(request: Any) -> Any:
        answer = started(request)
        service.objects.containers[0].state = "running"
        return answer

    def status(_: Any) -> cri_pb2.ContainerStatusResponse:
        return cri_pb2.ContainerStatusResponse(status=cri_pb2.ContainerStatus(exit_code=137, reason="Error"))

    service.answers |= {"StartContainer": start, "StopContainer": stop, "ContainerStatus": status}
    monkeypatch.setattr(commands.logs, "write", pressing_at_first_output(commands.logs.write))
    assert service.run("run", "--rm", "--name", "web", "busybox") == 137
    assert graces == [10, 0]
    assert capsys.readouterr().err == "crisp: stopping run/web\ncrisp: killing run/web\n"
    assert service.changing()[-2:] == REMOVED


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (cri_pb2.ContainerStatus(exit_code=0, reason="Completed"), 0, ""),
        (
            cri_pb2.ContainerStatus(exit_code=137, reason="OOMKilled"),
            137,
            "crisp: run/web was killed: it needed more memory than its limit\n",
        ),
        (
            cri_pb2.ContainerStatus(exit_code=128, reason="StartError", message="why"),
            128,
            "crisp: run/web: StartError why\n",
        ),
    ],
)
def test_an_odd_end_is_explained(
    service: Service, capsys: Capture, status: cri_pb2.ContainerStatus, code: int, told: str
) -> None:
    service.answers["ContainerStatus"] = cri_pb2.ContainerStatusResponse(status=status)
    assert service.run("run", "--name", "web", "busybox") == code
    assert capsys.readouterr().err == told


def test_a_container_that_somebody_else_removed_has_no_status(service: Service, capsys: Capture) -> None:
    service.answers["ContainerStatus"] = Absent("container: gone")
    assert service.run("run", "--name", "web", "busybox") == 1
    assert "its exit status is lost" in capsys.readouterr().err


def test_a_daemon_that_goes_away_and_comes_back_loses_nothing(service: Service, capsys: Capture) -> None:
    service.events.get()
    service.events.put(None)  # the daemon ends, and its stream with it
    answered: list[Any] = [Busy("socket: nobody answers"), Busy("socket: nobody answers")]

    def objects(request: Any) -> Any:
        if service.requests("StartContainer") and answered:
            error = answered.pop()
            assert isinstance(error, CrispError)
            raise error
        return service._objects(request.realm)

    service.answers["Objects"] = objects
    assert service.run("run", "--name", "web", "busybox") == 7
    shown = capsys.readouterr()
    assert shown.out == "hello\n"
    assert shown.err in ("", "crisp: the daemon does not answer; run/web runs on, waiting for it\n")
