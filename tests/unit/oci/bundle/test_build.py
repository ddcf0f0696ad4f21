"""The whole configuration: whatever is asked, some things always hold."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oci.bundle import (
    Built,
    BundleDefaults,
    HandlerTraits,
    ResolvedMount,
    SandboxInitInputs,
    build,
    sandbox_init,
)
from oci.bundle.capabilities import KNOWN
from oci.errors import BadInput, CrispError, WrongState
from oci.facts import Peering, SourceFacts
from oci.workload import (
    Capabilities,
    ContainerSecurity,
    MountRequest,
    NamespaceMode,
    NamespaceOptions,
    PodSecurity,
    ProfileKind,
    Propagation,
    Resources,
    SecurityProfile,
)
from tests import bundles

segments = st.sampled_from(["a", "b", "dev", "etc", "shm", "sys", "fs", "cgroup", "hosts", "data", "..", "."])
paths = st.lists(segments, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
texts = st.text(max_size=12)
modes = st.sampled_from([NamespaceMode.POD, NamespaceMode.CONTAINER, NamespaceMode.NODE])
shared = st.sampled_from([NamespaceMode.POD, NamespaceMode.NODE])


@st.composite
def mounts(draw: st.DrawFn) -> ResolvedMount:
    request = MountRequest(
        container_path=draw(paths),
        host_path="/asked",
        readonly=draw(st.booleans()),
        propagation=draw(st.sampled_from(list(Propagation))),
    )
    return ResolvedMount(
        request=request,
        source=SourceFacts(path="/host", is_directory=True, peering=draw(st.sampled_from(Peering))),
    )


@st.composite
def requests(draw: st.DrawFn) -> Any:
    options = NamespaceOptions(network=draw(shared), ipc=draw(shared), pid=draw(modes))
    privileged = draw(st.booleans())
    names = st.lists(st.sampled_from([*KNOWN, "ALL"]), max_size=3).map(tuple)
    container = bundles.container(
        command=tuple(draw(st.lists(texts, max_size=3))),
        envs=tuple(draw(st.lists(st.tuples(texts, texts), max_size=3))),
        working_dir=draw(paths),
        tty=draw(st.booleans()),
        resources=Resources(
            cpu_shares=draw(st.integers(-1, 300000)),
            memory_limit=draw(st.integers(-1, 1 << 40)),
            oom_score_adj=draw(st.integers(-1001, 1001)),
        ),
        security=ContainerSecurity(
            namespaces=options,
            privileged=privileged,
            capabilities=Capabilities(add=draw(names), drop=draw(names)),
            seccomp=draw(
                st.sampled_from([None, *(SecurityProfile(kind=kind) for kind in list(ProfileKind)[:2])])
            ),
        ),
    )
    return bundles.inputs(
        container=container,
        pod=bundles.pod(security=PodSecurity(namespaces=options, privileged=draw(st.booleans()))),
        host=bundles.host(
            cgroup=draw(st.sampled_from([bundles.V1, bundles.V2])),
            capabilities=frozenset(draw(st.sets(st.sampled_from(KNOWN)))),
        ),
        mounts=tuple(draw(st.lists(mounts(), max_size=5))),
        namespaces=replace(bundles.inputs().namespaces, pid="/proc/9/ns/pid"),
    )


@settings(max_examples=300)
@given(requests())
def test_a_request_is_refused_by_kind_or_gives_a_sound_configuration(inputs: Any) -> None:
    try:
        built = build(inputs)
    except CrispError as error:
        assert isinstance(error, BadInput)
        return
    config = built.config
    assert json.loads(json.dumps(config, ensure_ascii=False).encode()) == config

    targets = [mount["destination"] for mount in config["mounts"]]
    assert len(set(targets)) == len(targets)
    for n, target in enumerate(targets):
        assert target.startswith("/") and target != "/" and "/../" not in target
        assert not any(earlier.startswith(f"{target}/") for earlier in targets[:n]), "covers an earlier mount"

    names = [entry.partition("=")[0] for entry in config["process"]["env"]]
    assert len(set(names)) == len(names) and {"PATH", "HOME", "HOSTNAME"} <= set(names)

    kinds = [entry["type"] for entry in config["linux"]["namespaces"]]
    options = inputs.container.security.namespaces
    assert len(set(kinds)) == len(kinds) and "mount" in kinds
    assert ("network" in kinds) == (options.network is not NamespaceMode.NODE)
    assert ("pid" in kinds) == (options.pid is not NamespaceMode.NODE)

    given = set(config["process"]["capabilities"]["bounding"])
    assert given <= inputs.host.capabilities
    rule = config["linux"]["resources"]["devices"][0]
    assert rule == {"allow": inputs.container.security.privileged, "access": "rwm"}
    assert config["ociVersion"] == "1.0.2"
    assert config["linux"]["cgroupsPath"] == inputs.cgroup.config_path


def test_equal_inputs_give_equal_configurations_that_share_nothing() -> None:
    first, second = build(bundles.inputs()), build(bundles.inputs())
    assert first == second
    first.config["process"]["env"].append("X=1")
    first.config["linux"]["resources"]["devices"][0]["allow"] = True
    first.config["mounts"][0]["options"].append("x")
    assert build(bundles.inputs()) == second


def test_a_privileged_container_needs_a_privileged_pod() -> None:
    with pytest.raises(
        BadInput, match=r"^config\.linux\.security_context\.privileged: the pod is not privileged"
    ):
        build(bundles.inputs(container=bundles.container(security=ContainerSecurity(privileged=True))))


def test_every_reduction_is_told() -> None:
    asked = bundles.container(
        security=ContainerSecurity(namespaces=bundles.OWN_PID, capabilities=Capabilities(add=("SYS_TIME",))),
        resources=Resources(memory_limit=1 << 20, memory_swap_limit=1 << 20, oom_score_adj=-1),
    )
    host = bundles.host(
        capabilities=frozenset(), lowest_oom_score_adj=3, swap_accounting=False, rlimits={"RLIMIT_NOFILE": 9}
    )
    assert build(bundles.inputs(container=asked, host=host)).notes == (
        "CAP_SYS_TIME left out: the daemon does not have it",
        "oom_score_adj -1 raised to 3: the daemon has no CAP_SYS_RESOURCE",
        "RLIMIT_NOFILE hard limit lowered to 9: the daemon has no CAP_SYS_RESOURCE",
        "memory and swap limit left out: the kernel has no swap accounting",
    )


def test_profiles_and_labels_reach_their_places() -> None:
    inputs = bundles.inputs(
        host=bundles.host(apparmor=True, selinux=True),
        defaults=BundleDefaults(apparmor_profile="crisp-default", seccomp_when_unset=True),
        handler=HandlerTraits(),
        selinux_level="s0:c1,c2",
    )
    config = build(inputs).config
    assert config["process"]["apparmorProfile"] == "crisp-default"
    assert config["process"]["selinuxLabel"] == "system_u:system_r:container_t:s0:c1,c2"
    assert config["linux"]["mountLabel"] == "system_u:object_r:container_file_t:s0:c1,c2"
    assert config["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"


def _init(**changed: Any) -> Built:
    inputs = SandboxInitInputs(
        pod_id=bundles.POD_ID,
        pod=bundles.pod(),
        host=bundles.host(),
        cgroup=bundles.inputs().cgroup,
        namespaces=bundles.inputs().namespaces,
    )
    return sandbox_init(replace(inputs, **changed))


def test_a_pods_first_process_has_nothing_but_its_namespace() -> None:
    config = _init().config
    process = config["process"]
    assert process["args"] == ["/catatonit", "-P"]
    assert all(names == [] for names in process["capabilities"].values())
    assert (process["noNewPrivileges"], process["oomScoreAdj"]) == (True, -998)
    assert config["root"] == {"path": "rootfs", "readonly": True}
    assert {"type": "pid"} in config["linux"]["namespaces"]
    assert [mount["destination"] for mount in config["mounts"]] == ["/proc", "/dev"]


def test_a_first_process_on_the_hosts_processes_makes_no_namespace() -> None:
    pod = bundles.pod(security=PodSecurity(namespaces=NamespaceOptions(pid=NamespaceMode.NODE)))
    assert "pid" not in [entry["type"] for entry in _init(pod=pod).config["linux"]["namespaces"]]


def test_a_first_process_on_a_weak_daemon_keeps_the_daemons_score() -> None:
    assert _init(host=bundles.host(lowest_oom_score_adj=0)).notes == (
        "oom_score_adj -998 raised to 0: the daemon has no CAP_SYS_RESOURCE",
    )


def test_a_first_process_never_starts_in_the_hosts_network_by_accident() -> None:
    with pytest.raises(WrongState, match="no pinned namespace of kind network"):
        _init(namespaces=replace(bundles.inputs().namespaces, network=""))


def test_sysctls_are_given_to_handlers_with_a_kernel_of_their_own() -> None:
    assert _init(sysctls={"net.ipv4.ip_forward": "1"}).config["linux"]["sysctl"] == {
        "net.ipv4.ip_forward": "1"
    }
    assert "sysctl" not in _init().config["linux"]


def test_no_quota_is_left_out_of_a_new_group() -> None:
    asked = bundles.container(resources=Resources(cpu_quota=-1, cpu_period=100000))
    made = build(bundles.inputs(container=asked)).config
    assert made["linux"]["resources"]["cpu"] == {"period": 100000}
