"""Every spec of critest but the excluded ones passes, with each runtime of Debian and with a newer runc."""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from api.proto import cri_pb2
from api.unbuilt import UNBUILT
from tests import calls, figures
from tests.conformance import critest
from tests.daemon import CALL_LIMIT, Daemon, running
from tests.images import catalogue
from tests.images.registry import Registry
from tests.machine import PATIENCE
from tests.parts.build import program

LEAST_PASSES = {"runc": 101, "crun": 97, "runc-new": 107, "shim-runc-v2": 101}
"""With Debian 12's versions and, where user namespaces run, `runc-new`; without AppArmor. Raise one when a
spec is won."""

NEWER = ("runc-new",)
"""Handlers that are compiled; the others are Debian's, found on PATH."""

MOST_EXCLUDED = 1  # lower it when one is won

STREAMING = "[k8s.io] Streaming runtime should support streaming interfaces"
IMAGES = "[k8s.io] Image Manager"
WEBSOCKETS = ("-websocket-exec", "-websocket-attach", "-websocket-portforward")

LISTS: dict[str, list[dict[str, str]]] = tomllib.loads(Path(__file__).with_name("excluded.toml").read_text())
EXCLUDED = [entry["spec"] for entry in LISTS["excluded"]]


def test_the_excluded_specs_exist_and_each_has_a_reason_that_still_holds() -> None:
    there = critest.specs()
    unknown = [spec for spec in EXCLUDED if spec not in there]
    built = [entry["spec"] for entry in LISTS["excluded"] if "rpc" in entry and entry["rpc"] not in UNBUILT]
    unexplained = [entry["spec"] for entry in LISTS["excluded"] if not entry.get("reason")]
    assert (unknown, built, unexplained) == ([], [], [])
    assert len(EXCLUDED) <= MOST_EXCLUDED
    assert len(EXCLUDED) == len(set(EXCLUDED))


@pytest.mark.parametrize("handler", sorted(LEAST_PASSES))
def test_critest_passes(
    handler: str,
    prepared_machine: None,
    image_registry: Registry,
) -> None:
    with running(image_registry, environment={}, overrides=overrides(handler)) as daemon:
        excused = conditions(daemon, handler)
        outcomes = critest.run(daemon.endpoint, handler, skip=EXCLUDED)
        counts = Counter(outcome.state for outcome in outcomes)
        figures.line(
            "conformance",
            f"critest {handler}: {counts['passed']} passed, {counts['failed']} failed,"
            f" {counts['skipped']} skipped by themselves, {len(EXCLUDED)} excluded",
        )
        slowest = sorted(outcomes, key=lambda outcome: -outcome.seconds)[:3]
        figures.line(
            "conformance", "  slowest: " + ", ".join(f"{o.seconds:.0f} s {o.spec[9:70]}" for o in slowest)
        )
        bad = [f"{o.spec}: {o.state}: {o.message}" for o in outcomes if o.state not in ("passed", "skipped")]
        assert bad == []
    calls.SPECS.update(o.spec for o in outcomes if o.state == "passed")
    assert {outcome.spec for outcome in outcomes} == critest.specs() - set(EXCLUDED)
    unexcused = [
        f"{o.spec}: {o.message}"
        for o in outcomes
        if o.state == "skipped" and not o.spec.startswith(tuple(excused))
    ]
    assert unexcused == []
    assert counts["passed"] >= LEAST_PASSES[handler]


@pytest.mark.parametrize("handler", ["runc", "crun"])
def test_streaming_passes_over_websockets_too(
    handler: str,
    prepared_machine: None,
    image_registry: Registry,
) -> None:
    with running(image_registry, environment={}) as daemon:
        outcomes = critest.run(daemon.endpoint, handler, focus=STREAMING, flags=WEBSOCKETS)
    counts = Counter(outcome.state for outcome in outcomes)
    figures.line(
        "conformance",
        f"critest {handler}, streaming over websockets: {counts['passed']} passed, {counts['failed']} failed",
    )
    assert [f"{o.spec}: {o.state}: {o.message}" for o in outcomes if o.state != "passed"] == []
    assert {o.spec for o in outcomes} == {spec for spec in critest.specs() if spec.startswith(STREAMING)}


@pytest.mark.parametrize("form", ["erofs", "directory"])
def test_the_image_specs_pass_in_each_form_of_a_layer(
    form: str,
    prepared_machine: None,
    image_registry: Registry,
) -> None:
    with running(image_registry, environment={}, overrides={"images": {"layer_form": form}}) as daemon:
        outcomes = critest.run(daemon.endpoint, "runc", skip=EXCLUDED, focus=IMAGES)
        busybox = cri_pb2.PullImageRequest(image=cri_pb2.ImageSpec(image=catalogue.BUSYBOX))
        daemon.images().PullImage(busybox, timeout=CALL_LIMIT)
        kept = {path.suffix for path in (daemon.state_dir / "images/layers").iterdir()}
        unpacked = any((tree / "bin").is_dir() for tree in (daemon.state_dir / "images/l").iterdir())
    counts = Counter(outcome.state for outcome in outcomes)
    figures.line(
        "conformance",
        f"critest, image specs, {form} form: {counts['passed']} passed, {counts['failed']} failed",
    )
    assert [f"{o.spec}: {o.state}: {o.message}" for o in outcomes if o.state != "passed"] == []
    assert {o.spec for o in outcomes} == {spec for spec in critest.specs() if spec.startswith(IMAGES)} - set(
        EXCLUDED
    )
    assert (kept >= {".tar", ".erofs"}, unpacked) == (form == "erofs", form == "directory")


def overrides(handler: str) -> dict[str, dict[str, Any]]:
    """The settings that a handler needs."""
    if handler == "shim-runc-v2":
        shim = program("containerd", "containerd-shim-runc-v2")
        return {f"handlers.{handler}": {"kind": "shim", "binary": str(shim)}}
    if handler not in NEWER:
        return {}
    return {f"handlers.{handler}": {"binary": str(program("runc", "runc"))}}


def conditions(daemon: Daemon, handler: str) -> list[str]:
    """The beginnings of specs that may skip themselves here, because what they need is not there."""
    status: Any = daemon.runtime().Status(cri_pb2.StatusRequest(), timeout=10 * PATIENCE)
    features = next(entry.features for entry in status.runtime_handlers if entry.name == handler)
    apparmor = Path("/sys/module/apparmor/parameters/enabled")
    holds = {
        "apparmor-off": not apparmor.exists() or apparmor.read_text().strip() != "Y",
        "no-user-namespaces": not features.user_namespaces,
        "no-recursive-read-only": not features.recursive_read_only_mounts,
    }
    return [entry["prefix"] for entry in LISTS["conditional"] if holds[entry["when"]]]
