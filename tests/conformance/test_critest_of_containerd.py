"""What fails on a runtime is the runtime's: containerd fails the same specs with the same binary."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from api.proto import cri_pb2
from benchmarks import gvisor
from benchmarks.sides import Containerd
from tests import figures, leaks
from tests.conformance import critest
from tests.conformance.test_critest_of_handlers import known
from tests.images.registry import Registry, write_hosts
from tests.parts.build import build, program
from tests.parts.cargo import NoToolchain

_RUNTIME = "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.{name}]\nruntime_type = '{type}'\n"
_OPTIONS = (
    "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.{name}.options]\nBinaryName = '{binary}'\n"
)


@contextmanager
def youki(top: Path, registry: Registry) -> Iterator[Containerd]:
    """containerd with its shim for runc, and youki below that."""
    try:
        build("youki")
    except NoToolchain as error:
        pytest.skip(f"youki cannot be built: {error}")
    runtimes = _RUNTIME.format(name="youki", type="io.containerd.runc.v2")
    runtimes += _OPTIONS.format(name="youki", binary=program("youki", "youki"))
    with _running(Containerd(top / "containerd", runtimes=runtimes), registry) as side:
        yield side


@contextmanager
def runsc(top: Path, registry: Registry) -> Iterator[Containerd]:
    """containerd with gVisor's own shim, which gives every container of a pod to the same runsc."""
    runtimes = _RUNTIME.format(name="runsc", type="io.containerd.runsc.v1")
    path = [gvisor.place(top / "bin")]
    with _running(Containerd(top / "containerd", runtimes=runtimes, path=path), registry) as side:
        yield side


@contextmanager
def _running(side: Containerd, registry: Registry) -> Iterator[Containerd]:
    with _nothing_stays(side), side.running(registry):
        write_hosts(side.directory / "certs.d", registry)
        yield side
        _remove_pods(side)


@contextmanager
def _nothing_stays(side: Containerd) -> Iterator[None]:
    """containerd keeps its groups and its bridge, CNI its rules where gVisor has taken a pod's address away,
    gVisor a network namespace, and critest what it mounted for a spec that failed.
    """
    addresses, before = Path("/var/lib/cni"), _mounted()
    addresses.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", addresses], check=True)
    rules = subprocess.run(["iptables-save", "--table", "nat"], check=True, capture_output=True).stdout
    try:
        yield
    finally:
        for point in reversed(_mounted()[len(before) :]):
            subprocess.run(["umount", "--lazy", point], check=True)
        subprocess.run(["ip", "link", "delete", "bench1"], check=False)
        subprocess.run(["iptables-restore", "--table", "nat"], input=rules, check=True)
        for group in sorted(leaks.cgroups(), reverse=True):
            if "k8s.io" in Path(group).parts:
                Path(group).rmdir()


def _mounted() -> list[str]:
    return [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def _remove_pods(side: Containerd) -> None:
    """critest leaves those of specs that failed half-way."""
    with side.client() as client:
        for pod in client.runtime.ListPodSandbox(cri_pb2.ListPodSandboxRequest()).items:
            client.runtime.StopPodSandbox(cri_pb2.StopPodSandboxRequest(pod_sandbox_id=pod.id))
            client.runtime.RemovePodSandbox(cri_pb2.RemovePodSandboxRequest(pod_sandbox_id=pod.id))


@pytest.mark.parametrize(("peer", "handlers"), [(youki, ("youki",)), (runsc, ("runsc", "runsc-cli"))])
def test_each_known_failure_is_one_of_containerd_with_the_same_runtime_too(
    prepared_machine: None,
    image_registry: Registry,
    pytestconfig: pytest.Config,
    peer: Callable[[Path, Registry], AbstractContextManager[Containerd]],
    handlers: tuple[str, ...],
) -> None:
    if not pytestconfig.getoption("whole_conformance"):
        pytest.skip("two minutes beside containerd, with --whole-conformance; the lists are compared else")
    specs = set[str]().union(*map(known, handlers))
    with (
        tempfile.TemporaryDirectory(prefix="crisp-containerd.") as top,
        peer(Path(top), image_registry) as side,
    ):
        outcomes = critest.run(f"unix://{side.socket}", handlers[0], only=specs)
        figures.line(
            "conformance",
            f"containerd {side.version} with the runtime of {' and '.join(handlers)}: "
            f"{sum(o.state == 'failed' for o in outcomes)} of the {len(specs)} specs fail that fail here",
        )
    assert {o.spec: o.state for o in outcomes} == dict.fromkeys(specs, "failed")
