"""What is laid out for conmon, and what is read of it, on plain directories."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from oci.errors import Absent, BadInput, Internal, WrongState
from oci.workload import ContainerId, PodId
from shim import process
from shim.cgroups import Cgroups, Hierarchies
from shim.kernel import pidfd
from shim.records import ProcessRef
from shim.runtimes import exits
from shim.runtimes.conmon import (
    MonitorFiles,
    Monitors,
    make_log,
    monitor_of,
    prepare,
    remove_leftovers,
    send_control,
)
from shim.runtimes.driver import Exit, Target
from shim.runtimes.exits import ExitWatch, oom_noted, read_exit, was_oom_killed
from shim.runtimes.logfile import identity, reopen

ID = ContainerId("cd" * 32)


@pytest.fixture
def files(tmp_path: Path) -> MonitorFiles:
    (tmp_path / "bundle").mkdir()
    for name in ("ends", "attach"):
        (tmp_path / "run" / name).mkdir(parents=True)
    return MonitorFiles(bundle=tmp_path / "bundle", run_dir=tmp_path / "run", id=ID)


def _litter(files: MonitorFiles) -> None:
    bundle, end, persist = files.bundle, files.end, files.persist
    for directory in (end, persist):
        directory.mkdir(exist_ok=True)
    for path in (
        *(files.exit_file, files.container_pid, files.monitor_pid, files.control),
        *(bundle / "attach", bundle / "oom", persist / ID, end / "oom", persist / f"{ID}.A1B2C3"),
        *(bundle / ".pidfile", bundle / "conmon-pidfile.A1B2C3", end / "exit.A1B2C3"),
    ):
        path.write_text("9")
    files.link.symlink_to(files.bundle)


def test_stale_answers_are_gone_before_a_monitor_starts(files: MonitorFiles) -> None:
    _litter(files)
    prepare(files, None)
    assert sorted(str(p.relative_to(files.bundle.parent)) for p in files.bundle.parent.rglob("*")) == [
        "bundle", "bundle/exit", "run", "run/attach", "run/ends", f"run/ends/{ID}"
    ]  # fmt: skip


def test_leftovers_are_removed_twice_and_without_a_bundle(files: MonitorFiles) -> None:
    _litter(files)
    remove_leftovers(files)
    remove_leftovers(files)
    files.bundle.rmdir()
    remove_leftovers(files)
    assert sorted(p.name for p in files.run_dir.rglob("*")) == ["attach", "ends"]


def test_what_a_monitor_of_the_earlier_order_says_is_read_and_removed(files: MonitorFiles) -> None:
    """Its container was started before an upgrade, and is killed for want of memory after it."""
    exits = files.run_dir / "exits"
    for directory in (exits, files.persist):
        directory.mkdir()
    (files.persist / "exit").write_text("137")
    assert read_exit(files) == (137, (files.persist / "exit").stat().st_ctime_ns)
    (exits / ID).write_text("137")
    for path in (files.persist / "oom", files.persist / "exit.A1B2C3", exits / f"{ID}.A1B2C3"):
        path.write_text("")
    assert read_exit(files) == (137, (exits / ID).stat().st_ctime_ns)
    assert oom_noted(files)
    remove_leftovers(files)
    assert (list(files.bundle.iterdir()), list(exits.iterdir())) == ([], [])


def test_a_run_directory_too_deep_for_a_socket_is_refused(files: MonitorFiles, tmp_path: Path) -> None:
    deep = MonitorFiles(bundle=files.bundle, run_dir=tmp_path / ("d" * 90), id=ID)
    with pytest.raises(BadInput, match=r"run_dir: .*107 bytes"):
        prepare(deep, None)


def test_the_log_is_made_with_its_mode_and_kept_if_it_exists(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        make_log(tmp_path / "a/b/0.log")
    finally:
        os.umask(before)
    log = tmp_path / "a/b/0.log"
    log.write_text("kept")
    make_log(log)
    assert (log.read_text(), stat.S_IMODE(log.stat().st_mode)) == ("kept", 0o640)


def test_a_log_path_that_is_a_link_a_pipe_or_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "file/0.log", tmp_path / "link", tmp_path / "pipe"):
        with pytest.raises(Internal, match=r"log file .*(ENOTDIR|EEXIST|ELOOP|ENXIO)"):
            make_log(path)


def test_the_exit_file_is_read_from_either_place(files: MonitorFiles) -> None:
    assert read_exit(files) is None
    for directory in (files.end, files.persist):
        directory.mkdir()
    (files.persist / ID).write_text("3")
    assert read_exit(files) == (3, (files.persist / ID).stat().st_ctime_ns)
    files.exit_file.write_text("137")
    assert read_exit(files) == (137, files.exit_file.stat().st_ctime_ns)
    files.exit_file.write_text("-1")
    assert read_exit(files) == (None, files.exit_file.stat().st_ctime_ns)


@pytest.mark.parametrize(
    ("kills", "hint", "told"),
    [("1", False, True), ("0", True, False), (None, True, True), (None, False, False)],
)
def test_the_cgroups_counter_beats_conmons_hint(
    files: MonitorFiles, tmp_path: Path, kills: str | None, hint: bool, told: bool
) -> None:
    target = Target(
        id=ID, pod_id=PodId("p"), directory=files.bundle, log_path=None, tty=False, stdin=False,
        stdin_once=False, cgroup="/c",
    )  # fmt: skip
    cgroups = Cgroups(Hierarchies(v2=tmp_path / "cgroup"))
    if kills is not None:
        (tmp_path / "cgroup/c").mkdir(parents=True)
        (tmp_path / "cgroup/c/memory.events").write_text(f"oom 1\noom_kill {kills}\n")
    if hint:
        (files.bundle / "oom").write_text("")
    assert was_oom_killed(cgroups, target, files) is told


def concluded(files: MonitorFiles, tmp_path: Path, target: Target, monitor: ProcessRef | None) -> Exit:
    """How a container ended whose process is dead, by its files and the cgroups below `tmp_path`."""

    async def main() -> Exit:
        with ThreadPoolExecutor(1) as io:
            cgroups = Cgroups(Hierarchies(v2=tmp_path / "cgroup"), io=io)
            watch = ExitWatch(
                run_dir=files.run_dir,
                cgroups=cgroups,
                monitors=Monitors(cgroups=cgroups, cgroup="/monitors", io=io),
                listener=lambda _id, _exit: None,
                io=io,
            )
            return await watch.conclude(target, monitor)

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("written", "kills", "noted", "kept"),
    [
        (True, "0", False, True),
        (True, "1", True, True),
        (True, "1", False, False),
        (True, "0", True, False),
        (True, None, True, True),
        (False, "0", False, False),
    ],
)
def test_an_end_is_kept_when_the_files_alone_would_tell_the_same_of_it(
    files: MonitorFiles, tmp_path: Path, written: bool, kills: str | None, noted: bool, kept: bool
) -> None:
    target = Target(
        id=ID, pod_id=PodId("p"), directory=files.bundle, log_path=None, tty=False, stdin=False,
        stdin_once=False, cgroup="/c",
    )  # fmt: skip
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "cgroup/cgroup.controllers").write_text("memory\n")
    if kills is not None:
        (tmp_path / "cgroup/c").mkdir()
        (tmp_path / "cgroup/c/memory.events").write_text(f"oom 1\noom_kill {kills}\n")
    if noted:
        (files.bundle / "oom").write_text("")
    if written:
        files.end.mkdir()
        files.exit_file.write_text("3")

    ended = concluded(files, tmp_path, target, None)
    assert (ended.code, ended.kept) == (3 if written else None, kept)


def test_the_end_is_told_though_there_was_no_descriptor_to_watch_conmon_by(
    files: MonitorFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[bool | OSError] = [OSError(errno.EMFILE, "Too many open files"), True]

    async def wait_gone(_ref: object, _timeout: float) -> bool:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        files.end.mkdir()
        files.exit_file.write_text("3")
        return answer

    monkeypatch.setattr(process, "wait_gone", wait_gone)
    monkeypatch.setattr(exits, "_LOOK_AGAIN", 0.0)
    target = Target(
        id=ID, pod_id=PodId("p"), directory=files.bundle, log_path=None, tty=False, stdin=False,
        stdin_once=False, cgroup="",
    )  # fmt: skip

    assert concluded(files, tmp_path, target, process.reference(os.getpid())).code == 3


@pytest.mark.parametrize(
    ("code", "kills", "explained"),
    [(137, 1, True), (137, 0, False), (1, 1, False)],
    ids=["oom", "killed", "failed"],
)
def test_a_kill_that_scope_and_conmon_took_along_is_told_by_the_pods_group_and_once(
    files: MonitorFiles,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    kills: int,
    explained: bool,
) -> None:
    """systemd has removed the scope of the first container before anybody looked; the second one runs on."""
    pod = tmp_path / "cgroup/pod.slice"
    for name in ("cgroup.procs", "memory.events"):
        for group in (pod, pod / "crisp-a.scope", pod / "crisp-b.scope"):
            group.mkdir(parents=True, exist_ok=True)
            (group / name).write_text("" if name == "cgroup.procs" else "oom_kill 0\n")
    ends: dict[str, Exit] = {}
    dies: dict[str, Callable[[], None]] = {}
    told: list[Callable[[], None]] = []

    def on_exit(_descriptor: int, listener: Callable[[], None]) -> Callable[[], None]:
        told.append(listener)
        return lambda: None

    monkeypatch.setattr(pidfd, "on_exit", on_exit)

    def target(id_: str) -> Target:
        return Target(
            id=ContainerId(id_), pod_id=PodId("p"), directory=tmp_path / id_, log_path=None, tty=False,
            stdin=False, stdin_once=False, cgroup=f"/pod.slice/crisp-{id_}.scope",
        )  # fmt: skip

    async def end(watch: ExitWatch, id_: str, code: int) -> None:
        shutil.rmtree(pod / f"crisp-{id_}.scope")
        (files.run_dir / "ends" / id_).mkdir()
        (files.run_dir / "ends" / id_ / "exit").write_text(str(code))
        dies[id_]()
        async with asyncio.timeout(10):
            await watch.ended(ContainerId(id_), timeout=10)
            while len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0.01)

    async def main() -> None:
        with ThreadPoolExecutor(1) as io:
            cgroups = Cgroups(Hierarchies(v2=tmp_path / "cgroup"), io=io)
            monitors = Monitors(cgroups=cgroups, cgroup="/monitors", io=io)
            watch = ExitWatch(
                run_dir=files.run_dir, cgroups=cgroups, monitors=monitors, listener=ends.__setitem__, io=io
            )
            for id_ in ("a", "b"):
                watch.watch(target(id_), process.reference(os.getpid()), None)
                dies[id_] = told.pop()
            (pod / "memory.events").write_text(f"oom_kill {kills}\n")
            await end(watch, "a", code)
            await end(watch, "b", 137)
            await watch.close()

    asyncio.run(main())
    assert (ends["a"].code, ends["a"].oom_killed, ends["a"].kept) == (code, explained, not explained)
    assert (ends["b"].code, ends["b"].oom_killed) == (137, False)


def test_a_pid_file_of_another_program_names_no_monitor(files: MonitorFiles) -> None:
    assert monitor_of(files) is None
    files.monitor_pid.write_text(str(os.getpid()))
    assert monitor_of(files) is None


def test_a_control_fifo_without_a_reader_means_that_the_monitor_is_gone(files: MonitorFiles) -> None:
    with pytest.raises(Absent, match="conmon of container"):
        send_control(files, b"2 0 0\n")
    os.mkfifo(files.control)
    with pytest.raises(Absent, match="conmon of container"):
        send_control(files, b"2 0 0\n")
    reader = os.open(files.control, os.O_RDONLY | os.O_NONBLOCK)
    try:
        send_control(files, b"2 0 0\n")
        assert os.read(reader, 64) == b"2 0 0\n"
    finally:
        os.close(reader)


def test_files_are_told_apart_by_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    (tmp_path / "b").write_text("")
    (tmp_path / "c").symlink_to("a")
    assert identity(tmp_path / "a") == identity(tmp_path / "c") != identity(tmp_path / "b")
    assert identity(tmp_path / "none") is None


def test_a_monitor_that_ends_while_its_log_is_reopened_is_told_as_gone(
    files: MonitorFiles, tmp_path: Path
) -> None:
    os.mkfifo(files.control)  # nobody reads it
    log = tmp_path / "logs/0.log"

    async def story() -> None:
        with ThreadPoolExecutor(1) as io, pytest.raises(WrongState, match="its conmon has ended"):
            await reopen(files, log, process.reference(os.getpid()), io=io, timeout=5)

    asyncio.run(story())
    assert list(log.parent.iterdir()) == []
