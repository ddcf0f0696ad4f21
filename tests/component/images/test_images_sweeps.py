"""Each step of a pull, an import and a removal fails; callers vanish and the daemon stops at each suspension.

After each point every image that is shown is whole, nothing is there that belongs to none, the same request
succeeds, and what is removed leaves nothing. The sweeps over failing writes, kills and power cuts are in
test_images_power_cut.py and test_images_killed.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from oci.errors import CrispError
from shim.images import intake, layers, store, threads
from shim.images.store import ImageStore
from tests import figures
from tests.component.images import rig
from tests.component.images.rig import opened
from tests.component.images.scenes import VERBS, Scene, leftovers
from tests.doubles.registry import Registry
from tests.fault.faults import Faults
from tests.fault.suspensions import LateThreads, Suspensions, delay_threads

_PATIENCE = 5.0  # seconds until what was given up must have gone
_THINNER = 6
"""How much thinner than the other sweeps these are where those are thin."""


@dataclass(slots=True, kw_only=True)
class Sweep:
    scene: Scene
    home: Path
    form: str
    stride: int

    def opened(self, **more: Any) -> contextlib.AbstractAsyncContextManager[ImageStore]:
        return opened(self.home, form=self.form, **more)

    async def settled(self, images: ImageStore, point: str) -> None:
        """Nothing is left that belongs to no image."""
        deadline = time.monotonic() + _PATIENCE
        while left := leftovers(images, self.home):
            assert time.monotonic() < deadline, f"{point}: {left}"
            await asyncio.sleep(0.01)

    async def go_on(self, images: ImageStore, verb: str, point: str) -> None:
        """The same again succeeds, and is removed without a rest."""
        try:
            await self.scene.act(images, verb)
        except CrispError as error:
            raise AssertionError(f"{point}: the retry fails: {error}") from error
        assert self.scene.reached(images, verb), point
        self.scene.check(images, verb)
        await self.scene.clear(images)
        await self.settled(images, f"{point}, after a removal")

    def seen(self, images: ImageStore, verb: str, point: str) -> None:
        try:
            self.scene.check(images, verb)
        except AssertionError as error:
            raise AssertionError(f"{point}: {error}") from error


@pytest.fixture
def sweep(double: Registry, home: Path, form: str, request: pytest.FixtureRequest) -> Sweep:
    stride = int(request.config.getoption("--sweep-stride"))
    return Sweep(
        scene=Scene(double=double, archive=home.parent / "archive"),
        home=home,
        form=form,
        stride=stride * _THINNER if stride > 1 else 1,
    )


def _first(verb: str, stride: int, *, late: bool = False) -> int:
    """Where a thin sweep begins: not at the same place for all, and where the shortest still has a point."""
    return 1 + (2 * VERBS.index(verb) + late) % min(stride, 5)


def _told(what: str, tried: dict[str, int], sweep: Sweep) -> None:
    verbs = ", ".join(f"{verb} {points}" for verb, points in tried.items())
    figures.line("sweeps", f"images, {what}, {sweep.form}: {verbs}; stride {sweep.stride}")
    assert min(tried.values()) > 0


def _watched(steps: Suspensions, sweep: Sweep, images: ImageStore, verb: str) -> asyncio.Task[None]:
    """The act as a task whose suspensions count from its first step; cancelled, it cancels the act."""

    async def act() -> None:
        await asyncio.ensure_future(sweep.scene.act(images, verb))

    return asyncio.create_task(steps.watched(act()))


@pytest.mark.timeout(3600)
def test_callers_that_vanish_leave_images_whole_and_nothing_else(sweep: Sweep) -> None:
    tried = dict.fromkeys(VERBS, 0)
    longest = 0.0

    async def story() -> None:
        nonlocal longest
        steps = Suspensions()
        steps.install()
        async with sweep.opened() as images:
            await sweep.scene.set_up(images)
            for verb in VERBS:
                at = _first(verb, sweep.stride)
                while (took := await _caller(sweep, images, verb, steps, at)) is not None:
                    longest = max(longest, took)
                    tried[verb] += 1
                    at += sweep.stride

    asyncio.run(story())
    _told(f"callers cancelled, gone within {longest:.1f} s", tried, sweep)


async def _caller(sweep: Sweep, images: ImageStore, verb: str, steps: Suspensions, at: int) -> float | None:
    """How long the caller took to go; None when the act has fewer suspensions."""
    await sweep.scene.prepare(images, verb)
    told = 0.0

    def cancel() -> None:
        nonlocal told
        told = time.monotonic()
        caller.cancel()

    steps.arm(at, cancel)
    caller = _watched(steps, sweep, images, verb)
    await asyncio.wait({caller})
    steps.arm(0, cancel)
    took = time.monotonic() - told if told else None
    if not caller.cancelled():
        caller.result()
    point = f"{verb}, caller cancelled at suspension {at}"
    if at % 2:
        await sweep.settled(images, point)  # else the retry meets what still ends
    sweep.seen(images, verb, point)
    await sweep.go_on(images, verb, point)
    return took


@pytest.mark.timeout(3600)
def test_stops_of_the_daemon_leave_images_whole_and_the_next_life_goes_on(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "ThreadPoolExecutor", LateThreads)
    tried = dict.fromkeys(VERBS, 0)

    async def story() -> None:
        steps = Suspensions()
        steps.install()
        async with sweep.opened() as images:
            await sweep.scene.set_up(images)
        for verb in VERBS:
            at = _first(verb, sweep.stride)
            while await _stop(sweep, verb, steps, at):
                tried[verb] += 1
                at += sweep.stride

    asyncio.run(story())
    _told("daemon stopped", tried, sweep)


async def _stop(sweep: Sweep, verb: str, steps: Suspensions, at: int) -> bool:
    """Stop the store at the act's `at`-th suspension, as at SIGTERM; False when it has fewer."""
    stopping: list[asyncio.Task[None]] = []
    async with sweep.opened() as images:
        await sweep.scene.prepare(images, verb)

        def stop() -> None:
            delay_threads()
            if at % 2:
                caller.cancel()  # as the server does with calls that take longer than it waits
            stopping.append(asyncio.create_task(images.close()))

        steps.arm(at, stop)
        caller = _watched(steps, sweep, images, verb)
        await asyncio.wait({caller})
        steps.arm(0, stop)
        for task in stopping:
            await task
    point = f"{verb}, daemon stopped at suspension {at}"
    if not caller.cancelled() and (error := caller.exception()) is not None:
        assert isinstance(error, CrispError), f"{point}: {error!r}"
    async with sweep.opened() as images:
        await sweep.settled(images, point)
        sweep.seen(images, verb, point)
        await sweep.go_on(images, verb, point)
    return bool(stopping)


@pytest.mark.timeout(3600)
def test_steps_that_fail_leave_images_whole_and_nothing_that_the_next_start_does_not_clear(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each alone, and together with each step of its undoing; before they have done their work, and after."""
    faults = Faults()
    monkeypatch.setattr(rig, "Store", _Wrapped(faults, "records", rig.Store))
    for module, name, called in (
        (store, "Threads", "threads"),
        (intake, "LayerProcess", "process"),
    ):
        monkeypatch.setattr(module, name, _Wrapped(faults, called, getattr(module, name)))
    monkeypatch.setattr(layers, "unpack", faults.function("unpack", layers.unpack))
    tried = dict.fromkeys(VERBS, 0)
    kept = asyncio.run(_steps(sweep, faults, tried))
    _told(f"steps failing, {kept} times something was left to the next start", tried, sweep)


class _Wrapped:
    """A class whose objects are wrapped, however they are made."""

    def __init__(self, faults: Faults, name: str, cls: Any) -> None:
        self._faults, self._name, self._cls = faults, name, cls

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._faults.wrap(self._name, self._cls(*args, **options))

    async def open(self, *args: Any, **options: Any) -> Any:
        return self._faults.wrap(self._name, await self._cls.open(*args, **options))


async def _steps(sweep: Sweep, faults: Faults, tried: dict[str, int]) -> int:
    """How often something was left that only a start clears away."""
    kept = 0
    async with contextlib.AsyncExitStack() as life:
        images = await life.enter_async_context(sweep.opened())
        await sweep.scene.set_up(images)
        for verb in VERBS:
            for late in (False, True):
                n, undone = _first(verb, sweep.stride, late=late), 0
                while True:
                    where = (n, n + undone) if undone else (n,)
                    failed, point = await _step(sweep, images, verb, faults, where, late)
                    if not failed:
                        break
                    tried[verb] += 1
                    left = await _left(sweep, images)
                    if left and n % 2:
                        await sweep.scene.act(images, verb)
                    if left:
                        kept += 1
                        await life.aclose()
                        images = await life.enter_async_context(sweep.opened())
                        await sweep.settled(images, f"{point}, in the next life")
                        sweep.seen(images, verb, f"{point}, in the next life")
                    await sweep.go_on(images, verb, point)
                    more = failed == len(where)
                    n, undone = (n, undone + max(sweep.stride // 4, 1)) if more else (n + sweep.stride, 0)
    return kept


async def _step(
    sweep: Sweep, images: ImageStore, verb: str, faults: Faults, where: tuple[int, ...], late: bool
) -> tuple[int, str]:
    """One failure; how many faults took place, and in words which."""
    await sweep.scene.prepare(images, verb)
    faults.arm(*where, after=late)
    failure: CrispError | None = None
    try:
        await sweep.scene.act(images, verb)
    except CrispError as error:
        failure = error
    faults.disarm()
    failed = len(faults.failed)
    point = f"{verb}, failing {'after' if late else 'at'} calls {where} of {faults.calls}: {failure}"
    sweep.seen(images, verb, point)
    assert failure is not None or sweep.scene.reached(images, verb), f"{point}: neither an error nor done"
    return failed, point


async def _left(sweep: Sweep, images: ImageStore) -> list[str]:
    """What is left when nothing runs any more."""
    await images._keeping.close()
    deadline = time.monotonic() + 0.3
    while (left := leftovers(images, sweep.home)) and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    return left
