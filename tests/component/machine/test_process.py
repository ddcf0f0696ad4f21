"""Child processes: what they get, how they end, and that nothing of them stays."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from oci.errors import Absent, BadInput
from shim import process
from shim.process import CommandFailed, CommandMissing, CommandTimedOut, Result
from shim.records import ProcessRef

T = TypeVar("T")


@pytest.fixture(autouse=True)
def descriptors_are_closed() -> Iterator[None]:
    before = sorted(entry.name for entry in Path("/proc/self/fd").iterdir())
    yield
    assert sorted(entry.name for entry in Path("/proc/self/fd").iterdir()) == before


def go(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work, debug=True)


def run(*argv: str, timeout: float = 20, **options: Any) -> Result:
    return go(process.run(argv, timeout=timeout, **options))


def shell(script: str, **options: Any) -> Result:
    return run("sh", "-c", script, **options)


def group_members(leader: int) -> list[int]:
    """Processes of a process group that are still there after the time that dying takes."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == leader and not go(
                    process.wait_gone(process.reference(int(entry.name)), 5)
                ):
                    found.append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError, Absent):
                continue
    return found


def test_output_and_status_come_back() -> None:
    assert shell("echo out; echo err >&2; exit 3", ok=(3,)) == Result(
        returncode=3, stdout=b"out\n", stderr=b"err\n"
    )


def test_a_child_gets_a_built_environment_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "daemon's own")
    environment = run("env", env={"NAMED": "1"}).stdout.decode().splitlines()
    assert sorted(environment) == ["NAMED=1", f"PATH={process.PATH}"]
    assert {"/usr/sbin", "/sbin"} <= set(process.PATH.split(":"))


def test_a_child_reads_nothing_unless_given_input_of_any_size() -> None:
    assert run("wc", "-c").stdout == b"0\n"
    assert run("wc", "-c", stdin=b"x" * 5_000_000).stdout == b"5000000\n"
    assert run("true", stdin=b"x" * 5_000_000).returncode == 0


def test_a_child_leads_a_process_group_of_its_own_in_the_session() -> None:
    seen: list[int] = []
    fields = shell("cut -d' ' -f5,6 /proc/$$/stat", on_spawn=seen.append).stdout.split()
    assert fields == [str(seen[0]).encode(), str(os.getsid(0)).encode()]


def test_a_child_gets_its_directory_and_the_named_descriptors_alone(tmp_path: Path) -> None:
    here, there = os.pipe()
    os.set_inheritable(here, True)  # as a library with C code may leave one
    try:
        listing = shell("pwd; ls /proc/$$/fd", cwd=tmp_path, pass_fds=(there,)).stdout.decode().split()
    finally:
        os.close(here)
        os.close(there)
    assert listing == [str(tmp_path), *sorted(["0", "1", "2", str(there)])]


def test_output_over_the_limit_is_dropped_and_the_child_goes_on() -> None:
    result = shell("head -c 3000000 /dev/zero; echo done >&2", output_limit=1000)
    assert result == Result(returncode=0, stdout=b"\0" * 1000, stderr=b"done\n")


def test_a_failure_says_what_the_command_said() -> None:
    with pytest.raises(CommandFailed) as failed:
        shell("echo first >&2; echo second >&2; exit 7")
    assert (str(failed.value), failed.value.returncode) == ("sh failed with status 7: first second", 7)
    with pytest.raises(CommandFailed, match="sh was killed by signal 9: it wrote nothing"):
        shell("kill -9 $$")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("/nonexistent/runc",), r"/nonexistent/runc cannot be executed: .*\(ENOENT\)"),
        (("no-such-command",), r"no-such-command cannot be executed: .*\(ENOENT\)"),
        (("/etc",), r"/etc cannot be executed: .*\(EACCES\)"),
    ],
)
def test_a_command_that_is_missing_is_named_with_the_errno(argv: tuple[str, ...], words: str) -> None:
    with pytest.raises(CommandMissing, match=words):
        run(*argv)


def test_a_missing_directory_is_named_beside_the_command(tmp_path: Path) -> None:
    with pytest.raises(CommandMissing, match=r"true cannot be executed \(.*/absent\): .*\(ENOENT\)"):
        run("true", cwd=tmp_path / "absent")


def test_an_argument_that_execve_cannot_take_is_bad_input() -> None:
    with pytest.raises(BadInput, match="command line of echo: too long for execve"):
        run("echo", "x" * 200_000)
    with pytest.raises(BadInput, match="command line of echo: "):
        run("echo", "a\0b")


def test_a_timeout_ends_the_whole_group_also_what_ignores_term(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.Child.end, "__kwdefaults__", {"grace": 0.2})
    seen: list[int] = []
    with pytest.raises(CommandTimedOut, match=r"sh did not end within 0\.3 s: begun") as timed_out:
        shell(
            "trap '' TERM; echo begun >&2; (trap '' TERM; while :; do sleep 60; done) & sleep 60; wait",
            timeout=0.3,
            on_spawn=seen.append,
        )
    assert timed_out.value.kind == "deadline"
    assert group_members(seen[0]) == []


def test_a_stopped_child_is_ended_too() -> None:
    seen: list[int] = []
    with pytest.raises(CommandTimedOut):
        shell("kill -STOP $$", timeout=0.2, on_spawn=seen.append)
    assert group_members(seen[0]) == []


@pytest.mark.parametrize("cancels", [1, 3])
def test_a_cancel_however_often_ends_and_reaps_the_child_first(
    monkeypatch: pytest.MonkeyPatch, cancels: int
) -> None:
    monkeypatch.setattr(process.Child.end, "__kwdefaults__", {"grace": 0.2})

    async def main() -> int:
        started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        script = "trap '' TERM; while :; do sleep 60; done"
        task = asyncio.ensure_future(
            process.run(["sh", "-c", script], timeout=60, on_spawn=started.set_result)
        )
        pid = await started
        for _ in range(cancels):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        return pid

    pid = go(main())
    assert group_members(pid) == []
    assert not Path(f"/proc/{pid}").exists()


def test_an_event_loop_that_ends_takes_its_children_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.Child.end, "__kwdefaults__", {"grace": 0.2})

    async def main() -> tuple[int, asyncio.Task[Result]]:
        started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        argv = ["sh", "-c", "trap '' TERM; while :; do sleep 60; done"]
        task = asyncio.ensure_future(process.run(argv, timeout=60, on_spawn=started.set_result))
        return await started, task

    pid, task = go(main())  # asyncio.run cancels every task that is left
    assert task.cancelled()
    assert group_members(pid) == []


def test_a_child_that_does_not_die_is_left_and_reaped_when_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "DYING", 0.05)
    kill = os.killpg
    monkeypatch.setattr(os, "killpg", lambda group, number: None)  # as in state D: no signal gets through

    async def main() -> tuple[int, int]:
        child = await process.spawn(["sleep", "60"])
        status = await child.end(grace=0)
        kill(child.pid, signal.SIGKILL)
        await child.exited()
        return status, child.pid

    status, pid = go(main())
    assert status == -signal.SIGKILL
    assert not Path(f"/proc/{pid}").exists()


def test_a_survivor_that_holds_the_output_delays_the_answer_by_little() -> None:
    begun = time.monotonic()
    result = shell("sleep 60 & echo $!")
    taken = time.monotonic() - begun
    os.kill(int(result.stdout), signal.SIGKILL)
    assert taken < 10
    assert result.returncode == 0


def test_a_survivor_that_writes_without_end_is_cut_off() -> None:
    result = shell("yes & echo $! >&2")
    with contextlib.suppress(ProcessLookupError):  # the closed pipe has ended it
        os.kill(int(result.stderr), signal.SIGKILL)
    assert result.returncode == 0


def test_many_children_at_once_keep_their_answers_apart() -> None:
    async def main() -> list[Result]:
        return await asyncio.gather(*(process.run(["echo", str(number)], timeout=60) for number in range(64)))

    assert [result.stdout for result in go(main())] == [f"{number}\n".encode() for number in range(64)]


def test_a_spawned_child_writes_where_the_caller_says_and_is_waited_for() -> None:
    async def main() -> tuple[bytes, int, int, bool]:
        here, there = os.pipe()
        child = await process.spawn(["sh", "-c", "echo hello; exit 4"], stdout=there)
        os.close(there)
        status = await child.wait()
        output = os.read(here, 100)
        os.close(here)
        return output, status, await child.wait(), child.signal(signal.SIGTERM)

    assert go(main()) == (b"hello\n", 4, 4, False)


def test_a_spawned_child_can_be_signalled_and_ended() -> None:
    async def main() -> tuple[int, int, bool]:
        child, other = await process.spawn(["sleep", "60"]), await process.spawn(["sleep", "60"])
        ref = child.reference()
        child.signal(signal.SIGUSR1)
        return await child.wait(), await other.end(), process.alive(ref)

    assert go(main()) == (-signal.SIGUSR1, -signal.SIGTERM, False)


def test_a_process_is_known_by_number_and_start(tmp_path: Path) -> None:
    strange = tmp_path / "a) Z 1 (b"
    shutil.copy("/bin/sleep", strange)
    child = subprocess.Popen([strange, "60"])
    try:
        ref = process.reference(child.pid)
        assert ref == ProcessRef(pid=child.pid, start_time=process.start_time(child.pid))
        later = ProcessRef(pid=ref.pid, start_time=ref.start_time + 1)
        assert (process.alive(ref), process.alive(later)) == (True, False)
        assert process.signal(later, signal.SIGKILL) is False
        assert go(process.wait_gone(later, 60)) is True
        assert go(process.wait_gone(ref, 0.05)) is False
        assert process.signal(ref, signal.SIGKILL) is True
        assert go(process.wait_gone(ref, 60)) is True
        assert process.alive(ref) is False  # a zombie: nothing has reaped it yet
        assert process.signal(ref, signal.SIGKILL) is True  # which a zombie takes
        assert process.reference(child.pid) == ref
    finally:
        child.kill()
        child.wait()
    with pytest.raises(Absent, match=f"process {child.pid} does not exist"):
        process.start_time(child.pid)
    assert (process.alive(ref), process.signal(ref, signal.SIGTERM)) == (False, False)
    assert go(process.wait_gone(ref, 60)) is True
