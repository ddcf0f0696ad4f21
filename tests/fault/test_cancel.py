"""Callers vanish, and the daemon stops, at each suspension of each verb: nothing is lost, retries succeed."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, wait

import pytest

from api.composition import Assembly
from oci.errors import CrispError
from shim.records import ContainerState
from shim.runtimes import oci
from shim.runtimes.shimv2 import driver as shim
from tests import figures
from tests.fault.rig import Rig, settled
from tests.fault.scenes import VERBS, Scene, clear, pay, quiet
from tests.fault.suspensions import LateThreads, Suspensions, delay_threads
from tests.images import catalogue

CASES = [("runc", False), ("crun", True), ("shim-runc-v2", False)]


@pytest.mark.parametrize(("handler", "shared_pids"), CASES)
def test_an_operation_goes_on_without_its_caller_and_an_equal_retry_has_its_result(
    rig: Rig, stride: int, handler: str, shared_pids: bool
) -> None:
    tried = asyncio.run(_callers(rig, shared_pids, stride))
    figures.line("sweeps", f"callers cancelled with {handler}: {told(tried)}, stride {stride}")
    assert min(tried.values()) > 0


@pytest.mark.parametrize(("handler", "shared_pids"), CASES)
def test_a_daemon_that_stops_within_an_operation_leaves_nothing_and_its_next_life_serves_the_retry(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, stride: int, handler: str, shared_pids: bool
) -> None:
    for module in (oci, shim):
        monkeypatch.setattr(module, "ThreadPoolExecutor", LateThreads)
    tried = asyncio.run(_shutdowns(rig, shared_pids, stride))
    figures.line("sweeps", f"daemon stopped with {handler}: {told(tried)}, stride {stride}")
    assert min(tried.values()) > 0


def told(tried: dict[str, int]) -> str:
    verbs = ", ".join(f"{verb} {points}" for verb, points in tried.items())
    return f"{sum(tried.values())} points ({verbs})"


async def _begin(rig: Rig, parts: Assembly, scene: Scene) -> frozenset[str]:
    """Play once, for what is lazy and for the image; what is there then, without pods."""
    await parts.images.pull(catalogue.BUSYBOX)
    await scene.prepare(parts)
    await scene.act(parts)
    await clear(parts)
    return await asyncio.to_thread(rig.things)


async def _callers(rig: Rig, shared_pids: bool, stride: int) -> dict[str, int]:
    steps = Suspensions()
    steps.install()
    tried = dict.fromkeys(VERBS, 0)
    async with rig.open() as parts:
        base = await _begin(rig, parts, Scene(rig=rig, verb="StopPodSandbox", shared_pids=shared_pids))
        for verb in VERBS:
            at = _first(verb, stride)
            while await _caller(
                rig, parts, Scene(rig=rig, verb=verb, shared_pids=shared_pids), base, steps, at
            ):
                tried[verb] += 1
                at += stride
    return tried


def _first(verb: str, stride: int) -> int:
    """Where a thin sweep begins: not at the same place for all."""
    return 2 - VERBS.index(verb) % 2 if stride > 1 else 1


async def _caller(
    rig: Rig, parts: Assembly, scene: Scene, base: frozenset[str], steps: Suspensions, at: int
) -> bool:
    """Cancel the caller when the operation is at its `at`-th suspension; False when it has fewer."""
    await scene.prepare(parts)
    caller = asyncio.create_task(steps.watched(scene.act(parts)))
    steps.arm(at, lambda: caller.cancel() and None)
    await asyncio.wait({caller})
    reached = steps.count >= at
    if not caller.cancelled():
        caller.result()
    elif at % 2:
        await quiet()  # else the retry joins what runs
    point = f"{scene.verb}, caller cancelled at suspension {at}"
    known = set(parts.node.store.pods), set(parts.node.store.containers)
    if caller.cancelled():
        await scene.retry(parts)
    await quiet()
    assert scene.reached(parts), f"{point}: {scene.states(parts)}"
    now = set(parts.node.store.pods), set(parts.node.store.containers)
    if known[0]:
        assert now[0] <= known[0], f"{point}: a second pod"
    assert len(now[0]) <= 1, f"{point}: more than one pod"
    assert len(now[1]) <= 1, f"{point}: more than one container"
    await clear(parts)
    left = await asyncio.to_thread(settled, lambda: sorted(rig.things() ^ base))
    assert left == [], point
    return reached


async def _shutdowns(rig: Rig, shared_pids: bool, stride: int) -> dict[str, int]:
    asyncio.get_running_loop().set_default_executor(LateThreads(max_workers=16))
    steps = Suspensions()
    steps.install()
    async with rig.open() as parts:
        base = await _begin(rig, parts, Scene(rig=rig, verb="StopPodSandbox", shared_pids=shared_pids))
    tried = dict.fromkeys(VERBS, 0)
    for verb in VERBS:
        at = _first(verb, stride)
        while await _shutdown(rig, Scene(rig=rig, verb=verb, shared_pids=shared_pids), base, steps, at):
            tried[verb] += 1
            at += stride
    return tried


async def _shutdown(rig: Rig, scene: Scene, base: frozenset[str], steps: Suspensions, at: int) -> bool:
    """Stop the daemon, without grace, at the operation's `at`-th suspension; False when it has fewer."""
    stopping: list[asyncio.Task[None]] = []
    late: list[Future[object]] = []
    parts = await rig.assemble()
    try:
        await scene.prepare(parts)

        def stop() -> None:
            late.extend(delay_threads())
            stopping.append(asyncio.create_task(parts.node.operations.close(grace=0)))

        caller = asyncio.create_task(steps.watched(scene.act(parts)))
        steps.arm(at, stop)
        await asyncio.wait({caller})
        steps.arm(0, stop)
        for task in stopping:
            await task
    finally:
        await parts.close()
    reached = bool(stopping)
    outcome = _outcome(caller)
    point = f"{scene.verb}, daemon stopped at suspension {at} ({outcome})"
    await asyncio.to_thread(wait, late, 10)
    left = await asyncio.to_thread(settled, lambda: rig.unknown(base, parts))
    assert left == [], f"{point}, before its next life"
    async with rig.open() as parts:
        left = await asyncio.to_thread(settled, lambda: rig.unknown(base, parts))
        assert left == [], point
        container = scene.states(parts)[1]
        assert verb_is_possible(scene.verb, container), f"{point}: {container}"
        try:
            await pay(parts)
            await scene.retry(parts)
            await clear(parts)
        except (CrispError, AssertionError, TimeoutError) as error:
            raise AssertionError(f"{point}: afterwards: {error!r}") from error
        left = await asyncio.to_thread(settled, lambda: sorted(rig.things() ^ base))
        assert left == [], point
    return reached


def verb_is_possible(verb: str, container: ContainerState | None) -> bool:
    """A start that the daemon's stop cut off must not have used the container up."""
    return verb != "StartContainer" or container in (ContainerState.CREATED, ContainerState.RUNNING)


def _outcome(caller: asyncio.Task[None]) -> str:
    if caller.cancelled():
        return "cancelled"
    error = caller.exception()
    if error is not None and not isinstance(error, CrispError):
        raise error
    return "done" if error is None else str(error)
