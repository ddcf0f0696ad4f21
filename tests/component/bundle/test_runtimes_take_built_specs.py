"""The real runc and crun create, start and delete containers from configurations that were built."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from oci.bundle import (
    SandboxInitInputs,
    build,
    sandbox_init,
)
from oci.cgroup import place
from oci.workload import (
    Capabilities,
    ContainerSecurity,
    DeviceRequest,
    MountRequest,
    NamespaceMode,
    NamespaceOptions,
    PodSecurity,
    ProfileKind,
    Propagation,
    Resources,
    SecurityProfile,
)
from shim.facts.rootfs import check_mount_targets, check_working_dir, resolve_user
from shim.facts.sources import resolve_devices, resolve_mounts
from shim.stats import read_cpu, read_memory
from tests import bundles
from tests.component.bundle.rig import PARENT, RUNTIMES, Stage, created, run_to_end, script

RUNTIME_DEFAULT = SecurityProfile(kind=ProfileKind.RUNTIME_DEFAULT)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_plain_container_is_confined_as_its_configuration_says(stage: Stage, runtime: str) -> None:
    asked = script(
        "id -u; id -g; id -G; pwd; hostname; echo $HOME; echo $HOSTNAME; echo $$; cat /proc/1/oom_score_adj;"
        " grep -E '^(CapBnd|CapEff|NoNewPrivs|Seccomp):' /proc/self/status; ulimit -n;"
        " touch /x 2>&1; wc -c < /proc/cpuinfo; (echo 1 > /proc/sys/kernel/shmmax) 2>&1; cat /dev/shm/mark",
        working_dir="/job/here",
        resources=Resources(memory_limit=64 << 20, cpu_shares=512, oom_score_adj=100),
        security=ContainerSecurity(
            namespaces=bundles.OWN_PID,
            readonly_rootfs=True,
            no_new_privs=True,
            capabilities=Capabilities(drop=("ALL",), add=("CHOWN",)),
            seccomp=RUNTIME_DEFAULT,
            masked_paths=("/proc/cpuinfo",),
            readonly_paths=("/proc/sys",),
        ),
    )
    (stage.rootfs / "job/here").mkdir(parents=True)
    (stage.directory / "shm/mark").write_text("of the pod\n")
    inputs = stage.inputs(
        "plain",
        container=asked,
        user=resolve_user(stage.rootfs, asked.security.user, "web"),
        working_dir=check_working_dir(stage.rootfs, "/job/here"),
    )
    check_mount_targets(stage.rootfs, (mount["destination"] for mount in build(inputs).config["mounts"]))
    lines = run_to_end(stage, runtime, build(inputs).config, "plain")

    assert lines == [
        "1000",
        "1000",
        "1000 50000",
        "/job/here",
        os.uname().nodename,
        "/home/web",
        "web-0",
        "1",
        "100",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000001",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "1024",
        "touch: /x: Read-only file system",
        "0",
        "/bin/sh: can't create /proc/sys/kernel/shmmax: Read-only file system",
        "of the pod",
    ]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_privileged_container_has_what_the_daemon_has(stage: Stage, runtime: str) -> None:
    security = ContainerSecurity(namespaces=bundles.OWN_PID, privileged=True, masked_paths=("/proc/cpuinfo",))
    inputs = stage.inputs(
        "privileged",
        container=script("grep CapBnd: /proc/self/status; test -w /sys && ls /dev/kmsg", security=security),
        pod=bundles.pod(security=PodSecurity(privileged=True)),
    )
    bounding = [line for line in Path("/proc/self/status").read_text().splitlines() if "CapBnd" in line]

    assert run_to_end(stage, runtime, build(inputs).config, "privileged") == [*bounding, "/dev/kmsg"]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_limits_reach_the_kernel_and_usage_is_read_back(stage: Stage, runtime: str) -> None:
    limits = Resources(memory_limit=64 << 20, memory_swap_limit=64 << 20, cpu_quota=20000, cpu_period=100000)
    inputs = stage.inputs("limits", container=script("sleep 100", resources=limits))
    with created(stage, runtime, build(inputs).config, "limits") as container:
        container.call("start")
        memory = read_memory(inputs.cgroup.kernel_path, stage.host)
        cpu = read_cpu(inputs.cgroup.kernel_path, stage.host)

        assert memory is not None and memory.available is not None and memory.working_set is not None
        assert memory.available + memory.working_set == 64 << 20
        assert cpu is not None and cpu.usage_core_nano_seconds
        assert Path(f"/proc/{container.pid}/cgroup").read_text().count(inputs.cgroup.kernel_path) >= 1


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_mounts_and_devices_arrive_with_their_options(stage: Stage, runtime: str) -> None:
    source = stage.directory / "volume"
    (source / "inner").mkdir(parents=True)
    link = stage.directory / "link"
    link.symlink_to("volume")
    spec = script(
        "touch /data/x 2>&1; touch /data/inner/y; ls /data; ls -l /dev/inside | cut -c1;"
        " head -c 3 /dev/inside | wc -c",
        mounts=(
            MountRequest(container_path="/data/inner", host_path=str(source / "inner")),
            MountRequest(
                container_path="/data",
                host_path=str(link),
                readonly=True,
                propagation=Propagation.HOST_TO_CONTAINER,
            ),
        ),
        devices=(DeviceRequest(container_path="/dev/inside", host_path="/dev/zero", permissions="r"),),
    )
    inputs = stage.inputs(
        "mounts",
        container=spec,
        mounts=resolve_mounts(spec.mounts),
        devices=resolve_devices(spec.devices),
    )

    lines = run_to_end(stage, runtime, build(inputs).config, "mounts")

    assert lines == ["touch: /data/x: Read-only file system", "inner", "c", "3"]
    assert (source / "inner/y").exists()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_pod_wide_pid_namespace_is_held_by_the_init(stage: Stage, runtime: str) -> None:
    init_root = stage.directory / "init-rootfs"
    for name in ("", "proc", "dev"):
        (init_root / name).mkdir()
    shutil.copy(shutil.which("catatonit") or "", init_root / "catatonit")
    first = sandbox_init(
        SandboxInitInputs(
            pod_id=bundles.POD_ID,
            pod=bundles.pod(),
            host=stage.host,
            cgroup=place(PARENT, "init", systemd=False),
            namespaces=stage.namespaces,
            rootfs=str(init_root),
        )
    )
    with created(stage, runtime, first.config, "init") as init:
        init.call("start")
        inputs = stage.inputs(
            "member",
            container=script("cat /proc/1/comm", security=ContainerSecurity()),
            namespaces=replace(stage.namespaces, pid=f"/proc/{init.pid}/ns/pid"),
        )

        assert run_to_end(stage, runtime, build(inputs).config, "member") == ["catatonit"]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_host_namespaces_are_joined_by_leaving_them_out(stage: Stage, runtime: str) -> None:
    own = NamespaceMode.NODE
    options = NamespaceOptions(network=own, pid=own, ipc=own)
    inputs = stage.inputs(
        "host",
        container=script(
            "for kind in net ipc uts pid; do readlink /proc/self/ns/$kind; done",
            security=ContainerSecurity(namespaces=options),
        ),
        pod=bundles.pod(security=PodSecurity(namespaces=options)),
    )
    ours = [str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in ("net", "ipc", "uts", "pid")]

    assert run_to_end(stage, runtime, build(inputs).config, "host") == ours


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_default_filter_refuses_new_namespaces_and_lets_the_rest_run(stage: Stage, runtime: str) -> None:
    inputs = stage.inputs(
        "filter",
        container=script(
            "unshare -U true 2>&1; (echo a | cat); mount -t tmpfs x /tmp 2>&1 | grep -o 'denied\\|permitted'",
            security=ContainerSecurity(namespaces=bundles.OWN_PID, seccomp=RUNTIME_DEFAULT),
        ),
    )

    assert run_to_end(stage, runtime, build(inputs).config, "filter") == [
        "unshare: unshare(0x10000000): Operation not permitted",
        "a",
        "denied",
    ]
