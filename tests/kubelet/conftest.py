"""One daemon and one kubelet for the tests that ask for `node`; a test's pods go with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import leaks
from tests.daemon import Daemon, running, warm_up
from tests.images.registry import Registry
from tests.kubelet import kubelet
from tests.kubelet.kubelet import Kubelet


@pytest.fixture(scope="session")
def kubelet_daemon(prepared_machine: None, image_registry: Registry) -> Iterator[Daemon]:
    with running(image_registry, environment={}, shared=True) as daemon:
        warm_up(daemon)
        yield daemon


OLDER = ("kubelet-1.34", "kubelet-1.30")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "shared_kubelet" in metafunc.fixturenames and metafunc.config.getoption("kubelets") == "all":
        metafunc.parametrize("shared_kubelet", ["kubelet", *OLDER], indirect=True, scope="session")


@pytest.fixture(scope="session")
def shared_kubelet(kubelet_daemon: Daemon, request: pytest.FixtureRequest) -> Iterator[Kubelet]:
    """The newest kubelet, or the part that a parameter names."""
    part = getattr(request, "param", "kubelet")
    systemd = kubelet_daemon.systemd_cgroups()
    with kubelet.running(kubelet_daemon.endpoint, systemd=systemd, part=part) as own:
        yield own


@pytest.fixture
def node(shared_kubelet: Kubelet, kubelet_daemon: Daemon) -> Iterator[Kubelet]:
    """The shared kubelet, without pods before and after the test."""
    yield shared_kubelet
    shared_kubelet.clear()
    kubelet_daemon.remove_all_pods()  # as kubelet would, a minute later
    assert kubelet_daemon.exceptions() == [], "crispd logged exceptions"


@pytest.fixture
def leak_scope(request: pytest.FixtureRequest) -> leaks.Scope:
    """The daemon's own directories too; its bridge comes with the first pod and stays."""
    shared: Daemon = request.getfixturevalue("kubelet_daemon")
    scope = shared.scope(descriptors=False)
    request.getfixturevalue("shared_kubelet")
    return leaks.Scope(
        directories=scope.directories,
        leases=scope.leases,
        expected=(
            *scope.expected,
            f"link {shared.bridge}",
            f"cgroup */{shared.cgroup_prefix}*",
            "path */ns*",
        ),
    )
