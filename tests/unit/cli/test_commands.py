"""Each command: what it asks of the daemon, what it prints, and how it ends."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from api.proto import admin_pb2, cri_pb2
from cli.main import main
from oci.errors import Absent, BadInput, Busy, Deadline, Internal, WrongState
from tests.unit.cli.service import ADMIN, Service, container, not_there, pod

SECOND = 10**9
WEB = pod("a", "default", "web", addresses=["10.0.0.7"], created_at=5 * SECOND)
MINE = pod("b", "run", "mine", realm="run")
OLD = pod("c", "default", "old", state="notready", fault="network: not detached")
NGINX = container("1", WEB, "nginx", attempt=2, started_at=7 * SECOND, pid=77, log_path="/l/2.log")
NGINX_BEFORE = container(
    "2", WEB, "nginx", attempt=1, state="exited", exit_code=137, reason="OOMKilled", finished_at=7 * SECOND
)
SHELL = container("3", MINE, "sh")
DONE = container("4", OLD, "job", state="exited", reason="Completed", finished_at=7 * SECOND)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    monkeypatch.setattr(time, "time_ns", lambda: 67 * SECOND)
    objects = admin_pb2.ObjectsResponse(pods=[WEB, MINE, OLD], containers=[NGINX, NGINX_BEFORE, SHELL, DONE])
    return Service(objects=objects)


Capture = pytest.CaptureFixture[str]


def test_ps_lists_what_runs(service: Service, capsys: Capture) -> None:
    assert service.run("ps") == 0
    assert capsys.readouterr().out == (
        "POD          CONTAINER  STATE    RESTARTS  AGE  HANDLER  IMAGE  ID\n"
        "default/web  nginx      running  2         1m   runc     img    111111111111\n"
        "run/mine     sh         running  0         -    runc     img    333333333333\n"
    )


def test_ps_lists_what_ended_with_its_reason(service: Service, capsys: Capture) -> None:
    assert service.run("ps", "-a", "-n", "default") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [
        ["default/old", "job"],
        ["default/web", "nginx"],
        ["default/web", "nginx"],
    ]
    assert "exited (0) 1m ago" in lines[1]
    assert "exited (137, OOMKilled) 1m ago" in lines[2]


def test_pods_are_listed_with_what_they_owe(service: Service, capsys: Capture) -> None:
    assert service.run("pods") == 0
    assert capsys.readouterr().out == (
        "POD          STATE                      CONTAINERS  ADDRESS   AGE   HANDLER  REALM    ID\n"
        "default/old  notready, owes a clean-up  0/1         -         -     runc     kubelet  cccccccccccc\n"
        "default/web  ready                      1/1         10.0.0.7  1m2s  runc     kubelet  aaaaaaaaaaaa\n"
        "run/mine     ready                      1/1         -         -     runc     run      bbbbbbbbbbbb\n"
    )


def test_the_json_of_containers_has_its_documented_members(service: Service, capsys: Capture) -> None:
    assert service.run("ps", "--realm", "kubelet", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == [
        {
            "id": "1" * 64,
            "realm": "kubelet",
            "namespace": "default",
            "pod": "web",
            "pod_id": "a" * 64,
            "name": "nginx",
            "attempt": 2,
            "state": "running",
            "created_at": None,
            "started_at": "1970-01-01T00:00:07.000000000Z",
            "finished_at": None,
            "exit_code": None,
            "reason": "",
            "message": "",
            "image": "img",
            "image_id": "",
            "handler": "runc",
            "pid": 77,
            "log_path": "/l/2.log",
            "labels": {},
            "annotations": {},
            "fault": "",
        }
    ]


def test_the_json_of_pods_has_its_documented_members(service: Service, capsys: Capture) -> None:
    assert service.run("pods", "--realm", "run", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == [
        {
            "id": "b" * 64,
            "realm": "run",
            "namespace": "run",
            "name": "mine",
            "uid": "uid-mine",
            "attempt": 0,
            "state": "ready",
            "created_at": None,
            "handler": "runc",
            "addresses": [],
            "labels": {},
            "annotations": {},
            "fault": "",
        }
    ]


def test_watching_shows_it_again_at_a_change_until_the_daemon_ends(service: Service, capsys: Capture) -> None:
    service.events.put(admin_pb2.Event(kind="pod"))
    service.events.put(None)
    assert service.run("pods", "--watch", "-o", "json") == 4
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) >= 1
    assert "the daemon ended the stream of events" in shown.err


def test_exec_gives_the_output_and_the_status_of_the_command(service: Service, capsys: Capture) -> None:
    service.answers["ExecSync"] = cri_pb2.ExecSyncResponse(stdout=b"out\n", stderr=b"err\n", exit_code=9)
    assert service.run("exec", "--timeout", "5", "web", "ls", "-l", "--help") == 9
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("out\n", "err\n")
    assert service.changing() == ["crisp.sock ExecSync"]
    assert service.requests("ExecSync") == [
        cri_pb2.ExecSyncRequest(container_id=NGINX.id, cmd=["ls", "-l", "--help"], timeout=5)
    ]


def test_a_command_in_another_encoding_is_refused(service: Service, capsys: Capture) -> None:
    assert service.run("exec", "mine", "echo", "caf\udce9") == 2
    assert capsys.readouterr().err == (
        "crisp: 'caf\\udce9' is not UTF-8, and the daemon understands nothing else\n"
    )


def test_exec_asks_the_realm_of_the_container(service: Service) -> None:
    assert service.run("exec", "mine", "true") == 0
    assert service.changing() == ["run.sock ExecSync"]


def test_stopping_a_container_gives_it_its_grace(service: Service, capsys: Capture) -> None:
    assert service.run("stop", "-t", "3", "run/mine/sh") == 0
    assert capsys.readouterr().out == "stopped run/mine/sh\n"
    assert service.requests("StopContainer") == [
        cri_pb2.StopContainerRequest(container_id=SHELL.id, timeout=3)
    ]


def test_stopping_a_pod_stops_its_containers_first(service: Service, capsys: Capture) -> None:
    assert service.run("stop", "web") == 0
    assert service.changing() == ["crisp.sock StopContainer", "crisp.sock StopPodSandbox"]
    assert "kubelet starts it again" in capsys.readouterr().err


def test_of_several_names_all_are_tried_and_the_first_failure_tells(
    service: Service, capsys: Capture
) -> None:
    service.answers["StopContainer"] = Deadline("stop: no end within 10 s")
    assert service.run("stop", "nothing", "mine", "old") == 3
    shown = capsys.readouterr()
    assert shown.out == "stopped default/old\n"
    assert "nothing" in shown.err
    assert "no end within 10 s" in shown.err


def test_kubelet_s_pods_are_removed_only_by_force(service: Service, capsys: Capture) -> None:
    assert service.run("rm", "old") == 1
    assert "default/old is kubelet's: delete the pod with kubectl, or use --force" in capsys.readouterr().err
    assert service.changing() == []
    assert service.run("rm", "--force", "old") == 0
    assert service.changing() == ["crisp.sock StopPodSandbox", "crisp.sock RemovePodSandbox"]


def test_what_runs_is_removed_only_by_force(service: Service, capsys: Capture) -> None:
    assert service.run("rm", "mine") == 1
    assert service.run("rm", "mine/sh") == 1
    assert capsys.readouterr().err == (
        "crisp: pod run/mine has running containers (sh); `crisp stop run/mine` first, or use --force\n"
        "crisp: container run/mine/sh runs; `crisp stop run/mine/sh` first, or use --force\n"
    )
    assert service.changing() == []
    assert service.run("rm", "-f", "mine/sh") == 0
    assert service.changing() == ["run.sock RemoveContainer"]


@pytest.mark.parametrize("failing", [False, True])
def test_removing_a_pod_of_run_removes_its_logs(service: Service, tmp_path: Path, failing: bool) -> None:
    service.state_directory = str(tmp_path)
    mine, other = tmp_path / "logs/run_mine_uid-mine", tmp_path / "logs/run_mine2_uid-mine"
    for directory in (mine, other):
        (directory / "sh").mkdir(parents=True)
        (directory / "sh/0.log").touch()
    if failing:
        service.answers["RemovePodSandbox"] = Internal("not wholly removed")
    assert service.run("rm", "-f", "run/mine") == (1 if failing else 0)
    assert (mine.exists(), other.exists()) == (False, True)


def test_images_are_listed_by_every_name(service: Service, capsys: Capture) -> None:
    service.answers["ListImages"] = cri_pb2.ListImagesResponse(
        images=[
            cri_pb2.Image(id="sha256:" + "b" * 64, repo_tags=["x:1", "x:2"], size=2**20, pinned=True),
            cri_pb2.Image(id="sha256:" + "a" * 64, size=5),
        ]
    )
    assert service.run("images") == 0
    assert capsys.readouterr().out == (
        "IMAGE   ID            SIZE     PINNED\n"
        "<none>  aaaaaaaaaaaa  5 B\n"
        "x:1     bbbbbbbbbbbb  1.0 MiB  yes\n"
        "x:2     bbbbbbbbbbbb  1.0 MiB  yes\n"
    )


def test_an_image_that_is_not_there_cannot_be_removed(service: Service, capsys: Capture) -> None:
    service.answers["ImageStatus"] = lambda request: cri_pb2.ImageStatusResponse(
        image=cri_pb2.Image(id="i", repo_tags=["there:1"]) if request.image.image == "there" else None
    )
    assert service.run("rmi", "gone", "there") == 3
    shown = capsys.readouterr()
    assert shown.out == "removed there:1\n"
    assert "image 'gone' is not in the store; `crisp images` lists what is" in shown.err
    assert service.changing() == ["run.sock RemoveImage"]


def test_an_archive_is_imported_by_its_absolute_path(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (tmp_path / "image.tar").touch()
    monkeypatch.chdir(tmp_path)
    service.answers["Import"] = admin_pb2.ImportResponse(
        images=[admin_pb2.ImportedImage(id="sha256:1", names=["n:1"])]
    )
    assert service.run("import", "image.tar", "--name", "n:1") == 0
    assert capsys.readouterr().out == "n:1  sha256:1\n"
    assert service.requests("Import") == [
        admin_pb2.ImportRequest(path=str(tmp_path / "image.tar"), names=["n:1"])
    ]
    assert service.run("import", "missing.tar") == 3


def test_a_store_is_imported_and_what_cannot_be_had_is_told(
    service: Service, tmp_path: Path, capsys: Capture
) -> None:
    digest = "sha256:" + "a" * 64
    service.answers["Import"] = admin_pb2.ImportResponse(
        images=[
            admin_pb2.ImportedImage(id="sha256:1", names=["n:1"], size=2048, digest=digest),
            admin_pb2.ImportedImage(names=["m:1"], digest=digest, problem="its layer is gone"),
        ]
    )
    assert service.run("import", "--from", "docker", str(tmp_path), "n:1", "m:1") == 1
    said = capsys.readouterr()
    assert (said.out, said.err.strip()) == ("n:1  sha256:1\n", "crisp: its layer is gone")
    assert service.run("import", "--from", "docker", "--dry-run", str(tmp_path)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["IMAGE", "n:1", "m:1"]
    assert lines[2].endswith("its layer is gone")
    assert service.requests("Import") == [
        admin_pb2.ImportRequest(path=str(tmp_path), kind="docker", images=["n:1", "m:1"]),
        admin_pb2.ImportRequest(path=str(tmp_path), kind="docker", dry_run=True),
    ]


def test_a_pull_says_who_answered_why_and_as_whom(service: Service, capsys: Capture) -> None:
    layers = [
        admin_pb2.LayerProgress(digest="sha256:" + "a" * 64, phase="done", received=2048, total=2048),
        admin_pb2.LayerProgress(digest="sha256:" + "b" * 64, phase="shared", total=10),
    ]
    service.answers["Pull"] = lambda _: iter(
        [
            admin_pb2.PullProgress(stage="manifest"),
            admin_pb2.PullProgress(
                stage="layers",
                endpoint="https://mirror.example",
                origin="/etc/crisp/certs.d/docker.io/hosts.toml:3",
                credentials="request",
                received=2048,
                total=2058,
                layers=layers,
            ),
            admin_pb2.PullProgress(stage="done", received=2048, image_id="sha256:" + "c" * 64),
        ]
    )
    assert service.run("pull", "busybox") == 0
    shown = capsys.readouterr()
    assert shown.out == "sha256:" + "c" * 64 + "\n"
    assert shown.err.splitlines()[:3] == [
        "crisp: busybox: from https://mirror.example (named in /etc/crisp/certs.d/docker.io/hosts.toml:3)"
        " credentials: request",
        "crisp: busybox: layer aaaaaaaaaaaa 2.0 KiB",
        "crisp: busybox: layer bbbbbbbbbbbb already here",
    ]
    assert shown.err.splitlines()[3].startswith("crisp: busybox: cccccccccccc, 2.0 KiB in ")


def test_a_pull_that_the_daemon_does_not_finish_can_be_tried_again(service: Service, capsys: Capture) -> None:
    service.answers["Pull"] = lambda _: iter([admin_pb2.PullProgress(stage="manifest")])
    assert service.run("pull", "busybox") == 4
    assert "pull again" in capsys.readouterr().err


def test_a_password_is_read_from_standard_input(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    service.answers["Pull"] = lambda _: iter([admin_pb2.PullProgress(image_id="i")])
    (tmp_path / "secret").write_text("pass word\n")
    with (tmp_path / "secret").open() as secret:
        monkeypatch.setattr("sys.stdin", secret)
        assert service.run("pull", "-q", "-u", "me", "--password-stdin", "x") == 0
    assert service.requests("Pull") == [
        admin_pb2.PullRequest(reference="x", username="me", password="pass word")
    ]


def test_logging_in_needs_a_place_to_ask_for_the_password(service: Service, capsys: Capture) -> None:
    assert service.run("pull", "-u", "me", "x") == 2
    assert service.run("pull", "--password-stdin", "x") == 2
    assert "--password-stdin" in capsys.readouterr().err
    assert service.calls == []


def test_where_a_pull_would_go_is_told_without_pulling(service: Service, capsys: Capture) -> None:
    service.answers["ExplainPull"] = admin_pb2.ExplainPullResponse(lines=["first", "second"])
    assert service.run("pull", "--explain", "x") == 0
    assert capsys.readouterr().out == "first\nsecond\n"
    assert service.changing() == ["admin.sock ExplainPull"]


def test_inspect_shows_all_or_one_of_its_parts(service: Service, capsys: Capture) -> None:
    service.answers["Inspect"] = admin_pb2.InspectResponse(
        kind="container",
        realm="kubelet",
        id=NGINX.id,
        record='{"r": 1}',
        request='{"q": 2}',
        spec='{"s": 3}',
        directory="/d",
    )
    assert service.run("inspect", "web/nginx") == 0
    assert service.run("inspect", "web/nginx", "--spec") == 0
    assert service.run("inspect", "web/nginx", "--request") == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {
            "kind": "container",
            "name": "default/web/nginx",
            "id": NGINX.id,
            "realm": "kubelet",
            "directory": "/d",
            "record": {"r": 1},
            "request": {"q": 2},
            "spec": {"s": 3},
        },
        {"s": 3},
        {"q": 2},
    ]
    assert service.requests("Inspect")[0] == admin_pb2.InspectRequest(id=NGINX.id)
    assert service.run("inspect", "web", "--spec", "--request") == 2


def test_a_pod_has_no_runtime_configuration(service: Service, capsys: Capture) -> None:
    service.answers["Inspect"] = admin_pb2.InspectResponse(kind="pod", id=WEB.id)
    assert service.run("inspect", "web", "--spec") == 3
    assert "a pod has none, name its container" in capsys.readouterr().err


def test_status_is_well_only_if_all_is_ready(service: Service, capsys: Capture) -> None:
    def conditions(network: bool) -> cri_pb2.StatusResponse:
        return cri_pb2.StatusResponse(
            status=cri_pb2.RuntimeStatus(
                conditions=[
                    cri_pb2.RuntimeCondition(type="RuntimeReady", status=True),
                    cri_pb2.RuntimeCondition(type="NetworkReady", status=network, reason="R", message="why"),
                ]
            )
        )

    service.answers["Status"] = conditions(True)
    assert service.run("status") == 0
    assert capsys.readouterr().out == (
        "daemon          crispd 1.2.3, process 42, 50.0 MiB\n"
        "running for     0s, ready after 120 ms\n"
        "state           /fake/state\n"
        "RuntimeReady    yes\n"
        "NetworkReady    yes\n"
        "realm kubelet   1 of 2 pods ready, 1 of 3 containers running, /fake/crisp.sock\n"
        "realm run       1 of 1 pods ready, 1 of 1 containers running, /fake/run.sock\n"
        "images          0\n"
        "clean-ups owed  default/old; `crisp inspect` says what\n"
    )
    service.answers["Status"] = conditions(False)
    assert service.run("status") == 1
    assert "NetworkReady    NO: R why\n" in capsys.readouterr().out
    assert service.run("status", "-o", "json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["conditions"][1] == {
        "type": "NetworkReady",
        "status": False,
        "reason": "R",
        "message": "why",
    }
    assert found["realms"][1] == {
        "name": "run",
        "sockets": ["/fake/run.sock"],
        "pods": 1,
        "pods_ready": 1,
        "containers": 1,
        "containers_running": 1,
    }


CHECKS = [
    admin_pb2.Check(area="kernel", name="version", verdict=admin_pb2.OK, found="6.12"),
    admin_pb2.Check(area="network", name="CNI", verdict=admin_pb2.PROBLEM, found="none", advice="do this"),
]


def test_the_doctor_tells_what_is_not_well_and_what_to_do(service: Service, capsys: Capture) -> None:
    service.answers["Doctor"] = admin_pb2.DoctorResponse(checks=CHECKS)
    assert service.run("doctor") == 1
    shown = capsys.readouterr()
    assert shown.out == (
        "VERDICT  AREA     CHECK  FOUND  WHAT TO DO\nproblem  network  CNI    none   do this\n"
    )
    assert shown.err == "crisp: 2 checks: 1 ok, 0 warnings, 1 problems (-a shows all)\n"
    service.answers["Doctor"] = admin_pb2.DoctorResponse(checks=CHECKS[:1])
    assert service.run("doctor", "-a") == 0
    assert "6.12" in capsys.readouterr().out


def test_without_a_daemon_the_doctor_looks_at_the_configuration(tmp_path: Path, capsys: Capture) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[log]\nlevl = "debug"\n')
    assert main(["--config", str(config), "doctor"], connector=not_there) == 4
    shown = capsys.readouterr().err
    assert f"{config}:2: log.levl: unknown key; did you mean 'level'?" in shown
    assert "crispd refuses to start until they are corrected" in shown
    assert "systemctl start crispd" in shown


def test_handlers_are_listed_with_what_is_wrong_with_them(service: Service, capsys: Capture) -> None:
    service.answers["Handlers"] = admin_pb2.HandlersResponse(
        handlers=[
            admin_pb2.Handler(
                name="runc", kind="oci", binary="/r", version="1", is_default=True, origin="on PATH", pods=3
            ),
            admin_pb2.Handler(name="crun", kind="oci", binary="/c", version="2", former=True, notes=["old"]),
            admin_pb2.Handler(name="odd", problem="no such file", origin="/c:3"),
        ],
        default_origin="the first usable one",
    )
    assert service.run("handlers") == 0
    assert capsys.readouterr().out == (
        "HANDLER  DEFAULT                    KIND  VERSION  BINARY  PODS  FROM                     PROBLEM OR"
        " NOTES\n"
        "runc     yes, the first usable one  oci   1        /r      3     on PATH                  -\n"
        "crun                                oci   2        /c      0     no longer configured so  old\n"
        "odd                                 -     -        -       0     /c:3                     no such"
        " file\n"
    )


SETTINGS = [
    admin_pb2.Setting(key="state_dir", value='"/s"', origin="/c.toml:1"),
    admin_pb2.Setting(key="log.level", value='"info"', origin="default"),
    admin_pb2.Setting(key="default_handler", value="unset", origin="default"),
]


def test_settings_are_shown_with_their_origins(service: Service, capsys: Capture) -> None:
    service.answers["EffectiveConfig"] = admin_pb2.EffectiveConfigResponse(settings=SETTINGS)
    assert service.run("config", "show") == 0
    assert capsys.readouterr().out == ('state_dir = "/s"\nlog.level = "info"\n# default_handler is unset\n')
    assert service.run("config", "show", "--origin", "log") == 0
    assert capsys.readouterr().out == 'KEY        ORIGIN   VALUE\nlog.level  default  "info"\n'
    assert service.run("config", "show", "log", "nothing") == 3


def test_without_a_daemon_the_files_are_shown(tmp_path: Path, capsys: Capture) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[log]\nlevel = "debug"\n')
    arguments = ["--config", str(config), "config", "show", "--origin", "log.level"]
    assert main(arguments, connector=not_there) == 0
    shown = capsys.readouterr()
    origin = f"{config}:2"
    assert shown.out == f'KEY        {"ORIGIN".ljust(len(origin))}  VALUE\nlog.level  {origin}  "debug"\n'
    assert "this is what its files say" in shown.err


def test_files_are_checked_without_a_daemon(tmp_path: Path, capsys: Capture) -> None:
    good, bad = tmp_path / "config.toml", tmp_path / "bad.toml"
    good.write_text("")
    bad.write_text("[log]\nlevel = 5\n\nnonsense = 1\n")
    assert main(["config", "check", str(good)], connector=not_there) == 0
    assert main(["config", "check", str(bad)], connector=not_there) == 1
    assert main(["config", "check", str(tmp_path / "none.toml")], connector=not_there) == 3
    assert main(["--config", str(good), "config", "check"], connector=not_there) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"no mistakes: {good}"
    assert [line.split(": ")[0] for line in lines[1:3]] == [f"{bad}:2", f"{bad}:4"]
    assert lines[3] == f"no mistakes: {good}"


def test_events_are_told_with_names(service: Service, capsys: Capture) -> None:
    for kind, id_, state in (("container", NGINX.id, "running"), ("pod", "f" * 64, "removed")):
        service.events.put(
            admin_pb2.Event(sequence=1, time=SECOND, kind=kind, realm="kubelet", id=id_, state=state)
        )
    service.events.put(None)
    assert service.run("events") == 4
    assert capsys.readouterr().out == (
        "1970-01-01T00:00:01.000000000Z  container  running  default/web/nginx  111111111111\n"
        "1970-01-01T00:00:01.000000000Z  pod  removed  -  ffffffffffff\n"
    )


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Absent("gone"), 3),
        (BadInput("field: wrong"), 2),
        (Busy("recovering"), 4),
        (Deadline("late"), 1),
        (WrongState("no"), 1),
        (Internal("broken"), 1),
    ],
)
def test_the_exit_status_tells_absent_busy_and_failed_apart(
    service: Service, capsys: Capture, error: Any, status: int
) -> None:
    service.answers["Objects"] = error
    assert service.run("ps") == status
    assert capsys.readouterr().err.startswith(f"crisp: {error}")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nonsense"],
        ["nonsense"],
        ["ps", "-o", "xml"],
        ["logs"],
        ["stop", "-t", "-1", "x"],
        ["exec", "x"],
        [],
    ],
)
def test_wrong_use_ends_with_2(arguments: list[str], capsys: Capture) -> None:
    assert main(arguments, connector=not_there) == 2
    capsys.readouterr()


@pytest.mark.parametrize(
    "arguments",
    [
        ["ps"],
        ["pods", "-w"],
        ["run", "x"],
        ["exec", "a", "b"],
        ["status"],
        ["events"],
        ["rm", "x"],
        ["pull", "x"],
    ],
)
def test_without_a_daemon_every_command_says_what_to_do(arguments: list[str], capsys: Capture) -> None:
    assert main(["--socket", str(ADMIN), *arguments], connector=not_there) == 4
    assert capsys.readouterr().err == (
        "crisp: socket /fake/admin.sock does not exist: crispd is not running (from --socket)\n"
        "start the daemon with `systemctl start crispd`, or by hand with `crispd`;"
        " its log says why it ended\n"
    )


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["ps", "-h"], ["config", "--help"], ["--version"]])
def test_help_needs_no_daemon(arguments: list[str], capsys: Capture) -> None:
    assert main(arguments, connector=not_there) == 0
    assert capsys.readouterr().out
