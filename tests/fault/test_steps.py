"""Each step of each verb fails, alone and together with each step of its undoing: nothing is lost."""

from __future__ import annotations

import asyncio

import pytest

from api.composition import Assembly
from oci.errors import CrispError
from shim.containers import create
from shim.pods import files
from tests import figures
from tests.fault.rig import Rig, settled
from tests.fault.scenes import VERBS, Scene, clear, pay, quiet
from tests.images import catalogue

CASES = [(verb, "runc", False) for verb in VERBS]
CASES += [
    ("RunPodSandbox", "crun", True),
    ("StartContainer", "crun", False),
    ("RemovePodSandbox", "crun", True),
]
CASES += [(verb, "shim-runc-v2", False) for verb in VERBS]


@pytest.mark.parametrize(("verb", "handler", "shared_pids"), CASES)
def test_no_failing_step_leaves_anything_that_no_record_knows(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, stride: int, verb: str, handler: str, shared_pids: bool
) -> None:
    for module, name in ((files, "make"), (files, "remove"), (files, "unmount"), (create, "look")):
        monkeypatch.setattr(module, name, rig.faults.function(name, getattr(module, name)))
    tried = asyncio.run(_sweep(rig, verb, shared_pids, stride))
    figures.line("sweeps", f"steps of {verb} with {handler}: {tried} points, stride {stride}")
    assert tried > 0


async def _sweep(rig: Rig, verb: str, shared_pids: bool, stride: int) -> int:
    tried = 0
    async with rig.open() as parts:
        await parts.images.pull(catalogue.BUSYBOX)
        await _once(rig, parts, Scene(rig=rig, verb="StopPodSandbox", shared_pids=shared_pids))
        base = await asyncio.to_thread(rig.things)
        steps = await _once(rig, parts, Scene(rig=rig, verb=verb, shared_pids=shared_pids))
        for late in (False, True):
            for n in range(1 + late % stride, steps + 1, stride):
                undone = 0
                while True:  # the n-th step alone, then with each later one as well
                    where = (n, n + undone) if undone else (n,)
                    scene = Scene(rig=rig, verb=verb, shared_pids=shared_pids)
                    told = await _point(rig, parts, scene, base, where, late)
                    tried += 1
                    if told < len(where):
                        break
                    undone += 1
    return tried


async def _once(rig: Rig, parts: Assembly, scene: Scene) -> int:
    """Play to the end without a fault; how many calls the verb makes."""
    await scene.prepare(parts)
    rig.faults.arm()
    await scene.act(parts)
    await quiet()
    rig.faults.disarm()
    assert scene.reached(parts)
    await clear(parts)
    return len(rig.faults.calls)


async def _point(
    rig: Rig, parts: Assembly, scene: Scene, base: frozenset[str], where: tuple[int, ...], late: bool
) -> int:
    """One failure: what it leaves, what the janitor pays, what a retry brings. How many faults took place."""
    await scene.prepare(parts)
    rig.faults.arm(*where, after=late)
    try:
        await scene.act(parts)
        failure = None
    except CrispError as error:
        failure = error
    await quiet()
    rig.faults.disarm()
    failed = tuple(rig.faults.failed)
    point = f"{scene.verb}, failing {'after' if late else 'at'} calls {where} of {rig.faults.calls}"
    left = await asyncio.to_thread(settled, lambda: rig.unknown(base, parts))
    assert left == [], f"{point}: {failure}"
    assert failure is not None or scene.reached(parts), (
        f"{point}: neither an error nor done: {scene.states(parts)}"
    )
    try:
        await pay(parts)
        await scene.retry(parts)
        await clear(parts)
    except (CrispError, AssertionError, TimeoutError) as error:
        raise AssertionError(f"{point} ({failure}): afterwards: {error!r}") from error
    left = await asyncio.to_thread(settled, lambda: sorted(rig.things() ^ base))
    assert left == [], point
    return len(failed)
