from __future__ import annotations

from collections.abc import Iterator

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
