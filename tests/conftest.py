"""Rules for every test: what it may touch, how long it may take, what it may leave.

Unit tests start no process and open no connection; an audit hook refuses. Tests with real parts (component,
kubelet, fault, conformance, node) run as root, one at a time on a machine, as each worker of a whole run has
one for itself (tests/apart); each is followed by a leak check.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests import apart, calls, figures, leaks, machine, whole
from tests.daemon import Daemon, running, warm_up
from tests.images import catalogue, registry

HERE = Path(__file__).resolve().parent
ROOMS_WITH_REAL_PARTS = frozenset({"component", "kubelet", "fault", "conformance", "node"})
LIMITS = {
    "unit": 30,
    "golden": 30,
    "rules": 300,
    "component": 120,
    "kubelet": 300,
    "fault": 900,
    "conformance": 1800,
    "node": 1800,
}
"""Seconds that one test of a room may take, fixtures included; a `timeout` mark of its own wins.
Both are multiplied by the machine's patience."""

# A busy machine is no failure: the limit of a test is the one above.
hypothesis.settings.register_profile("house", deadline=None)
hypothesis.settings.load_profile("house")

os.environ["PYTHONASYNCIODEBUG"] = machine.ASYNCIO_DEBUG  # read whenever an event loop is made
os.environ["PATH"] = f"{os.environ.get('PATH', '')}:{machine.SYSTEM_PATH}"

_FORBIDDEN = frozenset(
    {
        "subprocess.Popen", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.exec", "os.system",
        "socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo",
    }
)  # fmt: skip
_refusing = False
_STANDARD_ERROR = pytest.StashKey[int]()


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if _refusing and event in _FORBIDDEN:
        raise AssertionError(f"a unit test must not do this: {event}{arguments[:2]!r}")


sys.addaudithook(_refuse)  # stays for ever; it acts only while `_refusing`


def room(item: pytest.Item) -> str:
    """The folder of tests/ that the test is in."""
    parts = item.path.relative_to(HERE).parts
    return parts[0] if len(parts) > 1 else ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rooms = list(LIMITS)  # what fails soonest comes first
    items.sort(key=lambda item: rooms.index(room(item)) if room(item) in rooms else len(rooms))
    for item in items:
        own = item.get_closest_marker("timeout")
        limit = own.args[0] if own is not None and own.args else LIMITS.get(room(item))
        if limit is not None:
            item.add_marker(pytest.mark.timeout(limit * machine.PATIENCE), append=False)
        if room(item) in ROOMS_WITH_REAL_PARTS:
            item.add_marker(pytest.mark.root)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--sweep-stride",
        type=int,
        default=11,
        metavar="N",
        help="fault sweeps try every N-th point; 1 tries all, which takes some minutes",
    )
    parser.addoption(
        "--whole-conformance",
        action="store_true",
        help="run all of critest on runtimes too of which otherwise only some specs are run",
    )
    parser.addoption(
        "--soak-cycles",
        type=int,
        default=40,
        metavar="N",
        help="how often the soak tests connect, work and leave; 10000 takes some minutes",
    )
    parser.addoption(
        "--kubelet-pods",
        type=int,
        default=6,
        metavar="N",
        help="how many pods of kubelet's live through restarts and kills of the daemon, such as 30",
    )
    parser.addoption(
        "--hanging-probes",
        type=int,
        default=10,
        metavar="N",
        help="how many probes of kubelet's run into their time limit; 1000 takes some minutes",
    )
    parser.addoption(
        "--image-collection",
        action="store_true",
        help="wait for kubelet's collection of images too, which comes every five minutes",
    )
    parser.addoption(
        "--kubelets",
        choices=("newest", "all"),
        default="newest",
        help="all: static pods also under the older kubelets of tests/parts/table.py, which are built first",
    )
    parser.addoption(
        "--node",
        action="store_true",
        help="run a subset in the virtual machine too, with systemd and cgroup version 2: some minutes",
    )
    parser.addoption(
        "--walk-stride",
        type=int,
        default=11,
        metavar="N",
        help="the walk over all fields of all requests tries every N-th value; 1 tries all, in many minutes",
    )


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt(f"signal {number}")


def pytest_configure(config: pytest.Config) -> None:
    # So that fixtures take down what they made when a run is ended from outside.
    signal.signal(signal.SIGTERM, _interrupt)
    # In a shell's background SIGINT is ignored, and would be by the commands that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        config.stash[_STANDARD_ERROR] = os.dup(2)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Wait for the machine outside the test's own time limit; end the run if that limit does not work.

    The limit raises an exception in the main thread, which a test that hangs in the wrong place can swallow;
    it would then hold the machine for ever.
    """
    with machine.alone_on_the_machine(item.nodeid) if room(item) in ROOMS_WITH_REAL_PARTS else nullcontext():
        mark = item.get_closest_marker("timeout")
        limit = float(mark.args[0]) if mark is not None and mark.args else 120.0
        faulthandler.dump_traceback_later(2 * limit + 60, exit=True, file=item.config.stash[_STANDARD_ERROR])
        try:
            return (yield)
        finally:
            faulthandler.cancel_dump_traceback_later()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed:
        calls.PASSED.add(report.nodeid)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    if apart.has_workers(session.config):  # which are started right after this
        surroundings = ExitStack()
        session.config.add_cleanup(surroundings.close)
        surroundings.enter_context(apart.surrounded())


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, Any, Any]:
    done = yield
    if whole.is_whole(session.config) and not apart.is_worker(session.config):
        for report in whole.reports():
            session.config.hook.pytest_runtest_logreport(report=report)
    return done


def pytest_sessionfinish(session: pytest.Session) -> None:
    if apart.is_worker(session.config):
        session.config.workeroutput["told"] = apart.told()  # type: ignore[attr-defined]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker has ended; one that crashed tells nothing."""
    if words := getattr(node, "workeroutput", {}).get("told"):
        apart.listen(words)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    figures.write(terminalreporter)


@pytest.fixture(scope="session")
def prepared_machine() -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.fail("tests with real parts need root")
    with machine.prepared():
        yield


@pytest.fixture(scope="session")
def image_layout() -> Path:
    """An OCI layout with every image of tests/images/catalogue.py; only to be read."""
    return catalogue.written()


@pytest.fixture(scope="session")
def image_registry() -> Iterator[registry.Registry]:
    """A registry on loopback that has them all; only to be pulled from."""
    with registry.serving() as running:
        yield running


@pytest.fixture(scope="session")
def shared_daemon(prepared_machine: None, image_registry: registry.Registry) -> Iterator[Daemon]:
    """One daemon for all tests that ask for `served`; it has run a pod once, so that what is lazy is made."""
    with running(image_registry, shared=True) as daemon:
        warm_up(daemon)
        yield daemon


@pytest.fixture
def served(shared_daemon: Daemon) -> Iterator[Daemon]:
    """The shared daemon, without pods before and after the test. Do not stop it."""
    yield shared_daemon
    shared_daemon.remove_all_pods()
    assert shared_daemon.exceptions() == [], "crispd logged exceptions"


@pytest.fixture
def daemon(prepared_machine: None, image_registry: registry.Registry) -> Iterator[Daemon]:
    """A daemon of this test's own, which it may kill, stop and start as it likes."""
    with running(image_registry) as own:
        yield own


@pytest.fixture
def leak_scope(request: pytest.FixtureRequest) -> leaks.Scope:
    """Where the leak check looks: the machine, and the shared daemon where the test uses it."""
    if "served" in request.fixturenames:
        shared: Daemon = request.getfixturevalue("shared_daemon")
        return shared.scope(descriptors=True)
    return leaks.Scope()


@pytest.fixture(autouse=True)
def _unit_tests_keep_to_themselves(request: pytest.FixtureRequest) -> Iterator[None]:
    global _refusing
    _refusing = room(request.node) in ("unit", "golden")
    yield
    _refusing = False


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """After EVERY test with real parts the machine is as it was, or the test fails with what it left."""
    if room(request.node) not in ROOMS_WITH_REAL_PARTS:
        yield
        return
    request.getfixturevalue("prepared_machine")
    scope: leaks.Scope = request.getfixturevalue("leak_scope")
    before = leaks.take(scope)
    yield
    left = leaks.settled(before, scope)
    assert left == (), "left behind"
