from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.component.cri.client import Client
from tests.daemon import Daemon


@pytest.fixture
def client(served: Daemon) -> Iterator[Client]:
    """kubelet's socket of the shared daemon, with busybox there. The pods' cgroups are its to remove."""
    made = Client(served)
    made.pull()
    yield made
    served.remove_all_pods()
    served.remove_pod_groups()


_WALKED = pytest.StashKey[Counter[str]]()


@pytest.fixture(scope="session")
def walked(pytestconfig: pytest.Config) -> Callable[[str, int], None]:
    """Takes how many requests of a method a walk has tried, for the summary."""
    counts = pytestconfig.stash.setdefault(_WALKED, Counter())
    return lambda method, count: counts.update({method: count})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    counts = config.stash.get(_WALKED, None)
    if counts:
        terminalreporter.section("field walk")
        each = ", ".join(f"{method} {count}" for method, count in counts.most_common())
        terminalreporter.write_line(f"{counts.total()} requests tried: {each}")
