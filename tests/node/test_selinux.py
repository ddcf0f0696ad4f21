"""crispd on a machine with SELinux enforcing, as docs/confinement.md sets it up: its own domain, critest's
specs, and files of one pod that no other gets at.

Runs in the virtual machine alone: `tests/node/run.sh --selinux tests/node/test_selinux.py`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.proto import cri_pb2
from tests import figures, leaks
from tests.conformance import critest
from tests.daemon import CALL_LIMIT, TREE
from tests.images import catalogue
from tests.images.registry import Registry
from tests.node.operating import SOCKET, configure, pull, remove_all_pods, run, runtime

ENFORCING = Path("/sys/fs/selinux/enforce")
pytestmark = pytest.mark.skipif(
    not ENFORCING.exists() or ENFORCING.read_text() != "1",
    reason="only with SELinux enforcing: tests/node/run.sh --selinux tests/node/test_selinux.py",
)
SPECS = "[k8s.io] SELinux"


@pytest.fixture
def leak_scope() -> leaks.Scope:
    return leaks.Scope(expected=("*",))  # the service stays as long as the module's tests do


@pytest.fixture(scope="module")
def service(prepared_machine: None, image_registry: Registry) -> Iterator[None]:
    """crispd as an operator sets it up: installed, then the commands of deploy/selinux/crisp.cil."""
    run("sh", TREE / "deploy/install.sh", "--no-packages", "--wheels", "/opt/wheels", limit=1500)
    configure(image_registry)
    for line in (TREE / "deploy/selinux/crisp.cil").read_text().splitlines():
        if line.startswith(";     "):
            run("sh", "-euc", f"cd {TREE}; {line.lstrip('; ')}", limit=1500)
    run("systemctl", "enable", "--now", "crispd")
    yield
    remove_all_pods()
    run("systemctl", "disable", "--now", "crispd")


def context(pid: int | str) -> str:
    return Path(f"/proc/{pid}/attr/current").read_text().rstrip("\n\0")


def denials() -> set[str]:
    """What the kernel has refused to the daemon and to what it starts, as `source target:class { what }`."""
    told = run("journalctl", "--dmesg", "--boot", "--output", "cat", "--no-pager") + run(
        "journalctl", "--boot", "_TRANSPORT=audit", "--output", "cat", "--no-pager"
    )
    found = re.findall(
        r"avc:\s+denied\s+\{ ([^}]*) \}.*scontext=\w+:\w+:(\w+):\S* tcontext=\w+:\w+:(\w+):\S* tclass=(\w+)",
        told,
    )
    return {f"{source} {target}:{kind} {{ {what} }}" for what, source, target, kind in found}


def test_the_daemon_has_the_domain_of_container_engines(service: None) -> None:
    pid = run("systemctl", "show", "-P", "MainPID", "crispd").strip()
    assert context(pid).split(":")[2] == "container_engine_t"


def test_critests_specs_pass(service: None) -> None:
    outcomes = critest.run(SOCKET.replace("unix:", "unix://"), "runc", focus=SPECS)
    counts = Counter(outcome.state for outcome in outcomes)
    figures.line("conformance", f"critest, SELinux enforcing: {dict(counts)}")
    bad = [f"{o.spec}: {o.state}: {o.message}" for o in outcomes if o.state != "passed"]
    assert bad == [], sorted(denials())
    assert {o.spec for o in outcomes} == {spec for spec in critest.specs() if spec.startswith(SPECS)}
    assert len(outcomes) > 10


def started(name: str, *mounts: Any) -> str:
    """A container of a pod of its own."""
    pod = cri_pb2.PodSandboxConfig(
        metadata=cri_pb2.PodSandboxMetadata(name=name, namespace="default", uid=name),
        linux=cri_pb2.LinuxPodSandboxConfig(cgroup_parent=f"kubepods-besteffort-pod{name}.slice"),
    )
    calls: Any = runtime()
    id_ = calls.RunPodSandbox(cri_pb2.RunPodSandboxRequest(config=pod), timeout=CALL_LIMIT).pod_sandbox_id
    config = cri_pb2.ContainerConfig(
        metadata=cri_pb2.ContainerMetadata(name="main"),
        image=cri_pb2.ImageSpec(image=catalogue.BUSYBOX),
        command=["sleep", "100000"],
        mounts=mounts,
    )
    asked = cri_pb2.CreateContainerRequest(pod_sandbox_id=id_, config=config, sandbox_config=pod)
    made = calls.CreateContainer(asked, timeout=CALL_LIMIT).container_id
    calls.StartContainer(cri_pb2.StartContainerRequest(container_id=made), timeout=CALL_LIMIT)
    return str(made)


def said(container: str, command: str) -> tuple[int, str]:
    asked = cri_pb2.ExecSyncRequest(container_id=container, cmd=["sh", "-c", command])
    answer: Any = runtime().ExecSync(asked, timeout=CALL_LIMIT)
    return answer.exit_code, (answer.stdout + answer.stderr).decode()


def test_a_volume_is_reached_if_relabelled_and_no_file_of_another_pod_is(
    service: None, tmp_path: Path
) -> None:
    pull()
    for name in ("given", "kept"):
        (tmp_path / name).mkdir(mode=0o777)
        (tmp_path / name).chmod(0o777)
    mounts = [
        cri_pb2.Mount(
            container_path=f"/{name}", host_path=str(tmp_path / name), selinux_relabel=name == "given"
        )
        for name in ("given", "kept")
    ]
    first, second = started("first", *mounts), started("second", *mounts)
    assert said(first, "echo hello >/given/file && cat /given/file") == (0, "hello\n")
    code, words = said(first, "touch /kept/file")
    assert code != 0
    assert "Permission denied" in words
    # What a pod makes has its own categories, which the other's processes have not.
    assert context_of(tmp_path / "given").endswith(":s0")
    assert (
        said(first, "chmod 777 /given/file; cat /proc/self/attr/current")[1]
        != (said(second, "cat /proc/self/attr/current")[1])
    )
    (own,) = re.findall(r":(s0:c\d+,c\d+)", said(first, "cat /proc/self/attr/current")[1])
    private = tmp_path / "given" / "private"
    private.write_text("mine\n")
    private.chmod(0o666)
    run("chcon", f"system_u:object_r:container_file_t:{own}", private)
    assert said(first, "cat /given/private") == (0, "mine\n")
    assert said(second, "cat /given/private")[0] != 0


def context_of(path: Path) -> str:
    return run("stat", "--format=%C", path).strip()
