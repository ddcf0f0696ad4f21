"""Bad days, seen through the socket: each says what is wrong with the right code, and leaves nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from api.proto import cri_pb2 as cri_messages
from tests.daemon import CALL_LIMIT, TREE, Daemon, running, toml
from tests.doubles import oci_runtime
from tests.doubles.cni import CniPlugins, conflist
from tests.doubles.oci_runtime import Plan
from tests.fault import cri
from tests.fault.rig import Rig, settled
from tests.images.registry import Registry
from tests.machine import PATIENCE

INTERNAL, UNAVAILABLE = grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE
DEADLINE, FULL = grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED
_SETTLING = 20.0  # seconds that the janitor's first tries take at most


@contextlib.contextmanager
def served(registry: Registry, **overrides: dict[str, Any]) -> Iterator[Daemon]:
    """A daemon with settings of the test's own; what it leaves at its end fails the test."""
    with running(registry, overrides=overrides, shared=True) as daemon:
        cri.pull(daemon)
        yield daemon


def fails(work: Callable[[], object], code: grpc.StatusCode, *words: str) -> None:
    """It must fail with that code, and say all of the words."""
    with pytest.raises(grpc.RpcError) as failure:
        work()
    told = f"{failure.value.code()}: {failure.value.details()}"
    assert failure.value.code() is code, told
    for word in words:
        assert word in failure.value.details(), told


def until(look: Callable[[], bool], *, limit: float = _SETTLING) -> None:
    """Wait for what the daemon does on its own; only the outside can be looked at."""
    deadline = time.monotonic() + limit
    while not look():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


class TestRuntime:
    """A runtime that fails, hangs or prints garbage at each verb."""

    PLANS = (
        (
            "create",
            Plan(act="fail", words="no room in the ark"),
            "StartContainer",
            INTERNAL,
            "no room in the ark",
        ),
        ("create", Plan(act="garbage"), "StartContainer", INTERNAL, "create of container"),
        ("create", Plan(act="die"), "StartContainer", INTERNAL, "create"),
        ("create", Plan(act="hang"), "StartContainer", DEADLINE, "create did not end within 2 s"),
        ("start", Plan(act="fail", words="not in the mood"), "StartContainer", INTERNAL, "not in the mood"),
        ("start", Plan(act="garbage"), "StartContainer", INTERNAL, "start of container"),
        ("start", Plan(act="hang"), "StartContainer", DEADLINE, "start of container"),
        ("delete", Plan(act="fail", words="stuck"), "RemoveContainer", INTERNAL, "stuck"),
        ("delete", Plan(act="nothing"), "RemoveContainer", INTERNAL, "its state is still in"),
        ("delete", Plan(act="hang"), "RemoveContainer", INTERNAL, "did not end within 2 s"),
    )

    @pytest.mark.parametrize("real", ["runc", "crun"])
    def test_is_told_with_the_verb_and_its_words_and_leaves_nothing(
        self, prepared_machine: None, image_registry: Registry, tmp_path: Path, real: str
    ) -> None:
        found = subprocess.run(["which", real], capture_output=True, text=True, check=True).stdout.strip()
        program = oci_runtime.install(tmp_path, Path(found), {})
        with served(
            image_registry,
            containers={"runtime_timeout": "2s", "kill_timeout": "3s"},
            **{"handlers.double": {"binary": str(program)}},
        ) as daemon:
            rig = Rig(own=daemon)
            base = self._life(daemon, "warm", rig)
            for number, (verb, plan, fails_at, code, words) in enumerate(self.PLANS):
                life = cri.Life(daemon=daemon, name=f"{verb}{number}", handler="double")
                oci_runtime.install(tmp_path, Path(found), {verb: plan})
                life.ask("RunPodSandbox")
                life.ask("CreateContainer")
                if fails_at == "RemoveContainer":
                    life.ask("StartContainer")
                fails(lambda life=life, fails_at=fails_at: life.ask(fails_at), code, "handler double", words)
                oci_runtime.install(tmp_path, Path(found), {})
                life.ask("RemovePodSandbox")
                assert settled(lambda: sorted(rig.things() ^ base)) == [], (verb, plan)

    def _life(self, daemon: Daemon, name: str, rig: Rig) -> frozenset[str]:
        life = cri.Life(daemon=daemon, name=name, handler="double")
        life.start()
        life.ask("RemovePodSandbox")
        return rig.things()

    def test_that_is_gone_is_named_with_its_path(
        self, prepared_machine: None, image_registry: Registry, tmp_path: Path
    ) -> None:
        program = oci_runtime.install(tmp_path, Path("/usr/bin/crun"), {})
        with served(image_registry, **{"handlers.double": {"binary": str(program)}}) as daemon:
            life = cri.Life(daemon=daemon, name="gone", handler="double")
            life.ask("RunPodSandbox")
            life.ask("CreateContainer")
            program.rename(tmp_path / "away")
            fails(lambda: life.ask("StartContainer"), INTERNAL, str(program))
            (tmp_path / "away").rename(program)
            life.ask("RemovePodSandbox")


class TestPlugins:
    """CNI plugins that fail, hang, print nonsense or succeed too late."""

    def test_fail_pods_clearly_and_what_they_owe_is_paid_when_they_are_well_again(
        self, prepared_machine: None, image_registry: Registry, tmp_path: Path
    ) -> None:
        plugins = CniPlugins(tmp_path)
        with served(
            image_registry,
            network={
                "builtin": False,
                "bin_dirs": [str(plugins.bin_dir)],
                "add_timeout": f"{2 * PATIENCE:g}s",
                "del_timeout": f"{2 * PATIENCE:g}s",
            },
        ) as daemon:
            (daemon.directory / "net.d" / "10-pods.conflist").write_text(json.dumps(conflist("one")))
            until(lambda: ready(daemon))
            rig = Rig(own=daemon)
            cri.Life(daemon=daemon, name="warm").ask("RunPodSandbox")
            daemon.remove_all_pods()
            base = rig.things()
            for number, (entry, code, words) in enumerate(
                (
                    ({"do": "fail", "code": 7, "msg": "no more addresses"}, INTERNAL, "no more addresses"),
                    ({"do": "fail", "code": 11, "msg": "later"}, UNAVAILABLE, "later"),
                    ({"do": "say", "text": "it is all fine"}, INTERNAL, "ADD"),
                    ({"do": "say", "text": "{}"}, INTERNAL, "ADD"),
                    ({"do": "say", "text": "", "status": 3}, INTERNAL, "ADD"),
                    ({"do": "die", "signal": 9}, INTERNAL, "ADD"),
                    ({"do": "hang", "ignore_term": True, "child": True}, DEADLINE, "ADD"),
                )
            ):
                plugins.script({"ADD": entry})
                life = cri.Life(daemon=daemon, name=f"pod{number}")
                fails(lambda life=life: life.ask("RunPodSandbox"), code, "network pods", words)
                assert settled(lambda: sorted(rig.things() ^ base)) == [], entry
                assert plugins.asked()[-2:] == ["one ADD", "one DEL"], entry
                plugins.script({})
                life.ask("RunPodSandbox")
                life.ask("RemovePodSandbox")
            refusing = {"do": "fail", "code": 7, "msg": "no"}
            plugins.script({"ADD": refusing, "DEL": refusing})
            life = cri.Life(daemon=daemon, name="owing")
            fails(lambda: life.ask("RunPodSandbox"), INTERNAL, "network pods")
            assert rig.things() - base != frozenset()
            plugins.script({})
            until(lambda: rig.things() == base)  # the janitor's DEL

    def test_that_are_not_configured_are_asked_for(
        self, prepared_machine: None, image_registry: Registry
    ) -> None:
        with served(image_registry, network={"builtin": False}) as daemon:
            assert not ready(daemon)
            life = cri.Life(daemon=daemon, name="alone")
            fails(lambda: life.ask("RunPodSandbox"), UNAVAILABLE, "no CNI configuration in")
            assert cri.listed(daemon) == (set(), set())


def ready(daemon: Daemon) -> bool:
    status = daemon.runtime().Status(cri_messages.StatusRequest(), timeout=CALL_LIMIT).status
    (network,) = [condition for condition in status.conditions if condition.type == "NetworkReady"]
    return bool(network.status)


class TestDisk:
    def test_that_is_full_refuses_and_forgets_nothing_that_happens_meanwhile(self, daemon: Daemon) -> None:
        assert daemon.stop() == 0
        # Layers cannot be mounted from files of a tmpfs: they are unpacked there.
        mount = ["mount", "-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs", daemon.state_dir]
        subprocess.run(mount, check=True)
        try:
            daemon.start()
            self._story(daemon)
            assert daemon.stop() == 0
        finally:
            subprocess.run(["umount", "--lazy", daemon.state_dir], check=False)
            if daemon.process is not None:
                daemon.kill()

    def _story(self, daemon: Daemon) -> None:
        cri.pull(daemon)
        rig = Rig(own=daemon)
        cri.Life(daemon=daemon, name="warm").start()
        daemon.remove_all_pods()
        base = rig.things()
        steady = cri.Life(daemon=daemon, name="steady", script="sleep 1; exit 3")
        steady.start()
        filler = daemon.state_dir / "filler"
        with filler.open("wb", buffering=0) as full, contextlib.suppress(OSError):
            while True:
                full.write(bytes(4096))
        late = cri.Life(daemon=daemon, name="late")
        fails(lambda: late.ask("RunPodSandbox"), FULL, "space")
        refused = cri.Life(daemon=daemon, name="refused")
        refused.pod_id, refused.config = steady.pod_id, steady.config
        refused.container.metadata.name = "other"
        fails(lambda: refused.ask("CreateContainer"), FULL, "space")
        end = Path(f"/proc/{steady.seen()['process']}")
        until(lambda: not end.exists())
        filler.unlink()
        until(lambda: steady.seen()["container state"] == "CONTAINER_EXITED")
        assert steady.code() == 3  # a full disk keeps the code out of the first file that conmon writes there
        late.ask("RunPodSandbox")
        refused.ask("CreateContainer")
        daemon.remove_all_pods()
        assert settled(lambda: sorted(rig.things() ^ base)) == []


class TestPlaces:
    """Sockets and state that another process has."""

    def _refused(self, config: dict[str, dict[str, Any]], directory: Path) -> str:
        """The log of a daemon that must end with status 1 within seconds."""
        file = directory / "second.toml"
        file.write_text(toml(config))
        ended = subprocess.run(
            [sys.executable, "-m", "api.daemon", "--config", file],
            cwd=TREE, capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        assert ended.returncode == 1, ended.stderr
        return ended.stderr

    def test_that_are_in_use_refuse_a_second_daemon_with_the_pid_of_the_first(
        self, daemon: Daemon, tmp_path: Path
    ) -> None:
        life = cri.Life(daemon=daemon, name="first")
        life.ask("RunPodSandbox")
        other = tempfile.mkdtemp(prefix="crisp-", dir="/tmp")
        try:
            told = self._refused({"": {"state_dir": str(daemon.state_dir), "run_dir": other}}, tmp_path)
            assert f"is in use by process {daemon.pid}" in told
            told = self._refused(
                {"": {"state_dir": f"{other}/state", "run_dir": str(daemon.run_dir)}}, tmp_path
            )
            assert f"process {daemon.pid} already serves it" in told
        finally:
            subprocess.run(["rm", "-rf", other], check=True)
        assert cri.listed(daemon)[0] == {life.pod_id}

    def test_that_hold_something_else_are_named(self, prepared_machine: None, tmp_path: Path) -> None:
        directory = Path(tempfile.mkdtemp(prefix="crisp-", dir="/tmp"))
        try:
            (directory / "crisp.sock").write_text("mine")
            told = self._refused(
                {"": {"state_dir": f"{directory}/state", "run_dir": str(directory)}}, tmp_path
            )
            assert f"{directory}/crisp.sock: something that is not a socket is there" in told
            assert (directory / "crisp.sock").read_text() == "mine"
        finally:
            subprocess.run(["rm", "-rf", directory], check=True)


def test_a_daemon_that_is_told_to_stop_at_work_ends_in_seconds_and_containers_live_on(daemon: Daemon) -> None:
    cri.pull(daemon)
    steady = cri.Life(daemon=daemon, name="steady", script=cri.NUMBERS)
    steady.start()
    before = steady.seen()
    lives = [cri.Life(daemon=daemon, name=f"work{n}") for n in range(6)]
    outcomes: list[str] = []

    def work(life: cri.Life) -> None:
        try:
            life.start()
            outcomes.append("done")
        except grpc.RpcError as error:
            outcomes.append(error.code().name)

    threads = [threading.Thread(target=work, args=(life,)) for life in lives]
    for thread in threads:
        thread.start()
    until(lambda: any((daemon.state_dir / "pods").glob("*/resolv.conf")) and len(cri.listed(daemon)[0]) > 2)
    began = time.monotonic()
    assert daemon.stop() == 0
    took = time.monotonic() - began
    for thread in threads:
        thread.join()
    assert took < 15 * PATIENCE
    assert len(outcomes) == len(lives)
    assert set(outcomes) <= {"done", "UNAVAILABLE", "CANCELLED"}, outcomes
    os.kill(before["process"], 0)
    daemon.start()
    assert steady.seen() == before
    lines, wrong = cri.missing(steady.log)
    assert (wrong, lines > 0) == ([], True)


def test_a_registry_that_is_down_is_named(daemon: Daemon) -> None:
    host = daemon.certs_dir / "registry.example"
    (host / "hosts.toml").write_text('server = "http://127.0.0.1:9"\n\n[host."http://127.0.0.1:9"]\n')
    request = cri_messages.PullImageRequest(image=cri_messages.ImageSpec(image="registry.example/app:1"))
    pull = daemon.images().PullImage
    words = ("RegistryUnavailable: ", "127.0.0.1:9", "refused")  # kubelet reads the first, and wants UNKNOWN
    fails(lambda: pull(request, timeout=CALL_LIMIT), grpc.StatusCode.UNKNOWN, *words)


def test_a_file_that_is_no_database_is_set_aside_and_everything_is_rebuilt(daemon: Daemon) -> None:
    cri.pull(daemon)
    life = cri.Life(daemon=daemon, name="kept")
    life.start()
    before = life.seen()
    for nonsense in (b"", b"\0" * 8192, os.urandom(16384), b"SQLite format 3\0" + b"x" * 5000):
        assert daemon.process is not None
        os.kill(daemon.pid, signal.SIGKILL)
        daemon.kill()
        for left in daemon.state_dir.glob("state.db*"):
            left.unlink()
        (daemon.state_dir / "state.db").write_bytes(nonsense)
        daemon.start()
        assert life.seen() == before, nonsense[:20]
        if nonsense:
            (aside,) = daemon.state_dir.glob("state.db.damaged-*")
            assert aside.read_bytes() == nonsense


@pytest.mark.parametrize("lost", ["pod", "container", "both"])
def test_a_record_that_is_damaged_twice_takes_its_own_object_with_it_and_no_other(
    daemon: Daemon, lost: str
) -> None:
    cri.pull(daemon)
    rig = Rig(own=daemon)
    kept = cri.Life(daemon=daemon, name="kept", script="sleep 1000")
    kept.start()
    before, base = kept.seen(), rig.things()
    gone = cri.Life(daemon=daemon, name="gone", script="sleep 1000")
    gone.start()
    rig.id_prefix = gone.pod_id
    daemon.kill()
    records = {"pod": [gone.pod_id], "container": [gone.container_id]}
    for id_ in records.get(lost, [gone.pod_id, gone.container_id]):
        for copy in daemon.state_dir.glob(f"*/{id_}/record.json"):
            copy.write_text("{")
        with contextlib.closing(sqlite3.connect(daemon.state_dir / "state.db")) as database, database:
            database.execute("UPDATE records SET body = x'00' WHERE id = ?", (id_,))
    daemon.start()
    assert kept.seen() == before
    # Nobody could manage a container without its pod.
    left = {kept.pod_id} | ({gone.pod_id} if lost == "container" else set())
    assert cri.listed(daemon) == (left, {kept.container_id})
    if lost == "container":
        gone.ask("CreateContainer")
        gone.ask("RemovePodSandbox")
    assert settled(lambda: sorted(rig.things() ^ base)) == []
    gone.ask("RunPodSandbox")
