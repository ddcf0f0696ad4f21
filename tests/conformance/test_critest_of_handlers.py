"""critest on runtimes that cannot pass all of it: what fails is what is known to, as a page says too."""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests import figures
from tests.conformance import critest
from tests.conformance.test_critest import EXCLUDED, STREAMING
from tests.daemon import TREE, running
from tests.images.registry import Registry
from tests.parts.build import build, program
from tests.parts.cargo import NoToolchain

KNOWN: list[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("known_failures.toml").read_text())[
    "failed"
]
PAGES = {"youki": "youki.md", "runsc-cli": "runsc.md", "runsc": "runsc.md"}
LEAST_PASSES = {"youki": 94, "runsc-cli": 87, "runsc": 87}
PARTS = {"youki": "youki", "runsc-cli": "runsc", "runsc": "runsc"}


def table(handler: str) -> dict[str, Any]:
    """The handler's own table of the configuration."""
    if handler == "runsc":
        shim = program("runsc", "containerd-shim-runsc-v1")
        return {"kind": "shim", "binary": str(shim), "runtime_binary": str(program("runsc", "runsc"))}
    return {"binary": str(program(PARTS[handler], PARTS[handler]))}


def known(handler: str) -> set[str]:
    return {entry["spec"] for entry in KNOWN if handler in entry["handlers"]}


def outcomes_of(handler: str, registry: Registry, *, focus: str = "") -> list[critest.Outcome]:
    part = PARTS[handler]
    try:
        build(part)
    except NoToolchain as error:
        pytest.skip(f"{part} cannot be built: {error}")
    settings = {f"handlers.{handler}": table(handler)}
    # What fails in the middle of mounting leaves its own mounts: they are critest's, and go with its end.
    with running(registry, environment={}, overrides=settings) as daemon:
        outcomes = critest.run(daemon.endpoint, handler, skip=[*EXCLUDED, *known(handler)], focus=focus)
    counts = Counter(outcome.state for outcome in outcomes)
    figures.line(
        "conformance",
        f"critest {handler}{f', {focus[9:]}' if focus else ''}: {counts['passed']} passed,"
        f" {counts['failed']} failed, {counts['skipped']} skipped by themselves,"
        f" {len(known(handler))} known to fail with this runtime",
    )
    return outcomes


def test_each_known_failure_is_a_spec_with_a_reason_and_stands_on_its_page() -> None:
    there = critest.specs()
    pages = {handler: (TREE / "docs" / "handlers" / page).read_text() for handler, page in PAGES.items()}
    assert [entry for entry in KNOWN if entry["spec"] not in there or not entry["reason"]] == []
    shown = [
        entry["spec"].removeprefix("[k8s.io] ") in pages[handler]
        for entry in KNOWN
        for handler in entry["handlers"]
    ]
    assert all(shown)


@pytest.mark.timeout(600)
def test_critest_passes_on_youki_but_for_what_is_known(
    prepared_machine: None, image_registry: Registry
) -> None:
    outcomes = outcomes_of("youki", image_registry)
    assert [f"{o.spec}: {o.message}" for o in outcomes if o.state not in ("passed", "skipped")] == []
    assert Counter(o.state for o in outcomes)["passed"] >= LEAST_PASSES["youki"]


GVISOR = pytest.mark.parametrize("handler", ["runsc", "runsc-cli"])


@GVISOR
@pytest.mark.timeout(600)
def test_streaming_passes_on_gvisor(prepared_machine: None, image_registry: Registry, handler: str) -> None:
    outcomes = outcomes_of(handler, image_registry, focus=STREAMING)
    assert [f"{o.spec}: {o.message}" for o in outcomes if o.state != "passed"] == []
    assert outcomes


@GVISOR
@pytest.mark.timeout(900)
def test_critest_passes_on_gvisor_but_for_what_is_known(
    prepared_machine: None, image_registry: Registry, pytestconfig: pytest.Config, handler: str
) -> None:
    if not pytestconfig.getoption("whole_conformance"):
        pytest.skip(
            "whole critest on gVisor: two minutes, with --whole-conformance; its streaming specs are run"
        )
    outcomes = outcomes_of(handler, image_registry)
    assert [f"{o.spec}: {o.message}" for o in outcomes if o.state not in ("passed", "skipped")] == []
    assert Counter(o.state for o in outcomes)["passed"] >= LEAST_PASSES[handler]
