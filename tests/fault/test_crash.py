"""The daemon is killed after each durable write of a pod's life: its next life converges, retries succeed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import grpc
import pytest

from tests import figures
from tests.daemon import Daemon
from tests.fault import cri
from tests.fault.rig import Rig, settings_of, settled, unaccounted
from tests.fault.scenes import VERBS

LOST = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN)
NEVER = 0

Look = Callable[[], frozenset[str]]


NEWER = "runc-new"  # whose pods have user namespaces


@pytest.mark.parametrize("handler", ["runc", "crun", "shim-runc-v2", NEWER])
def test_after_a_kill_at_any_durable_write_records_and_machine_agree_and_retries_succeed(
    daemon: Daemon, stride: int, handler: str
) -> None:
    rig = Rig(own=daemon)
    first_id = 131072 if handler == NEWER else 0
    daemon.program = _program(NEVER, rig)
    daemon.overrides = settings_of(handler)
    daemon.restart()
    cri.pull(daemon)
    bystander = cri.Life(
        daemon=daemon, name="bystander", script=cri.NUMBERS, handler=handler, first_id=first_id
    )
    bystander.start()
    before = bystander.seen()
    # Its processes come and go.
    look = partial(_things, rig, (bystander.pod_id[:16], bystander.container_id[:16]))
    base = look()
    tried = 0
    thin = min(stride, 4)
    # They try different points where the sweep is thin.
    at = {"runc": 1, NEWER: 1 + thin // 4}.get(handler, 1 + thin // 2)
    while True:
        life = cri.Life(daemon=daemon, name=f"life{at}", handler=handler, first_id=first_id)
        if not _crash(rig, look, base, life, at):
            break
        tried += 1
        assert bystander.seen() == before
        at += thin
    lines, wrong = cri.missing(bystander.log)
    assert wrong == []
    assert lines > 100
    figures.line(
        "sweeps",
        f"kills after durable writes with {handler}: {tried} points, stride {thin}, {lines} lines kept",
    )
    assert tried > 0


def _program(at: int, rig: Rig) -> tuple[str, ...]:
    return ("-m", "tests.fault.crashing", str(at), rig.id_prefix)


def _things(rig: Rig, without: tuple[str, ...]) -> frozenset[str]:
    return frozenset(thing for thing in rig.things() if not any(mark in thing for mark in without))


def _unknown(daemon: Daemon, look: Look, base: frozenset[str]) -> list[str]:
    """What the daemon does not tell of. The bystander's network is part of `base`."""
    pods, containers = cri.listed(daemon)
    assert len(pods) <= 2, pods
    assert len(containers) <= 2, containers
    return unaccounted(look() - base, pods | containers, len(pods) - 1)


def _crash(rig: Rig, look: Look, base: frozenset[str], life: cri.Life, at: int) -> bool:
    """Live a pod's life with a daemon that dies at its `at`-th write; False when it never comes to that."""
    daemon = life.daemon
    assert daemon.stop() == 0
    daemon.program = _program(at, rig)
    daemon.start()
    died_in = ""
    for verb in VERBS:
        try:
            life.ask(verb)
        except grpc.RpcError as error:
            assert not died_in, f"{verb} failed though the daemon was well again: {error}"
            assert error.code() in LOST, error
            assert daemon.process is not None
            assert daemon.process.wait(10) == -9
            died_in = verb
            daemon.kill()
            daemon.program = _program(NEVER, rig)
            daemon.start()
            point = f"killed after write {at}, in {verb}"
            assert settled(partial(_unknown, daemon, look, base)) == [], point
            try:
                life.ask(verb)
            except grpc.RpcError as failure:
                raise AssertionError(f"{point}: the retry fails: {failure}") from failure
    assert daemon.process is not None
    if not died_in and daemon.process.poll() is not None:  # after the last answer
        died_in = "the end"
        daemon.kill()
    if died_in in ("", "the end"):
        daemon.program = _program(NEVER, rig)
        if daemon.process is not None:
            assert daemon.stop() == 0
        daemon.start()
    left = settled(lambda: sorted(look() ^ base))
    assert left == [], f"killed after write {at}, in {died_in}"
    return bool(died_in)
