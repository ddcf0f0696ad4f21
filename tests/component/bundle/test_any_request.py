"""Any valid request gives a configuration that the runtimes take, and the same one a second time.

Requests are drawn as the interface has them, so that their translation is part of what is tried.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.proto import cri_pb2
from api.translate.container_request import container_spec
from api.translate.pod_request import pod_spec
from oci.bundle import BundleDefaults, BundleInputs, ResolvedDevice, build
from oci.bundle.capabilities import KNOWN
from oci.cdi import Edits, MountEdit
from oci.facts import DeviceNode
from shim.facts.rootfs import resolve_user
from shim.facts.sources import resolve_devices, resolve_mounts
from tests.component.bundle.rig import RUNTIMES, Stage, created

VOLUME = "VOLUME"  # stands for a directory of the stage
_numbers = itertools.count()
NAMES = [capability.removeprefix("CAP_") for capability in KNOWN]
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=40)
MAPPINGS = st.dictionaries(st.from_regex(r"[a-z0-9./-]{1,12}", fullmatch=True), TEXT, max_size=2)
CAPABILITIES = st.lists(st.sampled_from([*NAMES, "ALL"]), max_size=4, unique=True)
AMBIENT = st.lists(st.sampled_from(NAMES), max_size=2, unique=True)
HIDDEN = st.lists(
    st.sampled_from(["/proc/kcore", "/proc/asound", "/sys/firmware", "/etc/group", "/nowhere"]), unique=True
)
PROFILES = (None, cri_pb2.SecurityProfile.RuntimeDefault, cri_pb2.SecurityProfile.Unconfined)
SHARED = st.sampled_from([cri_pb2.POD, cri_pb2.NODE])
USERS: tuple[dict[str, Any], ...] = (
    {},
    {"run_as_username": "web"},
    *({"run_as_user": cri_pb2.Int64Value(value=uid)} for uid in (0, 1000, 2**31 - 1)),
    {"run_as_user": cri_pb2.Int64Value(value=7), "run_as_group": cri_pb2.Int64Value(value=8)},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Both messages of a CreateContainerRequest, and what the node adds."""

    pod: cri_pb2.PodSandboxConfig
    container: cri_pb2.ContainerConfig
    umask: int | None
    device: bool


@st.composite
def requests(draw: st.DrawFn) -> Drawn:
    """What is impossible together is not drawn together."""
    privileged = draw(st.booleans())
    namespaces = cri_pb2.NamespaceOption(
        network=draw(SHARED), ipc=draw(SHARED), pid=draw(st.sampled_from([cri_pb2.CONTAINER, cri_pb2.NODE]))
    )
    readonly = draw(st.booleans())
    memory = draw(st.sampled_from([0, 64 << 20]))
    profile = draw(st.sampled_from(PROFILES))
    security = cri_pb2.LinuxContainerSecurityContext(
        namespace_options=namespaces,
        privileged=privileged,
        readonly_rootfs=draw(st.booleans()),
        no_new_privs=draw(st.booleans()),
        masked_paths=draw(HIDDEN),
        readonly_paths=draw(HIDDEN),
        capabilities=cri_pb2.Capability(
            add_capabilities=draw(CAPABILITIES),
            drop_capabilities=draw(CAPABILITIES),
            add_ambient_capabilities=draw(AMBIENT),
        ),
        supplemental_groups=draw(st.lists(st.integers(0, 70000), max_size=3, unique=True)),
        supplemental_groups_policy=draw(st.sampled_from([cri_pb2.Merge, cri_pb2.Strict])),
        seccomp=cri_pb2.SecurityProfile(profile_type=profile) if profile is not None else None,
        **draw(st.sampled_from(USERS)),
    )
    limits = cri_pb2.LinuxContainerResources(
        cpu_shares=draw(st.sampled_from([0, 2, 512, 1 << 18])),
        cpu_period=draw(st.sampled_from([0, 100_000])),
        cpu_quota=draw(st.sampled_from([0, -1, 20_000])),
        memory_limit_in_bytes=memory,
        memory_swap_limit_in_bytes=draw(st.sampled_from([0, -1, 64 << 20])) if memory else 0,
        oom_score_adj=draw(st.integers(0, 1000)),
    )
    mount = cri_pb2.Mount(
        host_path=VOLUME,
        container_path=draw(st.sampled_from(["/data", "/data/inner/deep", "/etc/hosts.d", "/mnt/a b"])),
        readonly=readonly,
        propagation=draw(st.sampled_from(cri_pb2.MountPropagation.values())),
        mount_options=draw(st.lists(st.sampled_from(["noexec", "nodev", "nosuid"]), unique=True)),
    )
    devices = [cri_pb2.Device(host_path="/dev/null", container_path="/dev/nothing", permissions="rwm")]
    keys = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,9}", fullmatch=True)
    container = cri_pb2.ContainerConfig(
        metadata=cri_pb2.ContainerMetadata(name="app", attempt=draw(st.integers(0, 2**32 - 1))),
        image=cri_pb2.ImageSpec(image="sha256:" + "a" * 64),
        command=["/bin/true"],
        args=draw(st.lists(TEXT, max_size=3)),
        envs=[
            cri_pb2.KeyValue(key=key, value=value.encode())
            for key, value in draw(st.lists(st.tuples(keys, TEXT), max_size=4))
        ],
        mounts=[mount],
        devices=devices if draw(st.booleans()) else [],
        labels=draw(MAPPINGS),
        annotations=draw(MAPPINGS),
        stdin=draw(st.booleans()),
        linux=cri_pb2.LinuxContainerConfig(resources=limits, security_context=security),
    )
    pod = cri_pb2.PodSandboxConfig(
        metadata=cri_pb2.PodSandboxMetadata(name="web", namespace="shop", uid="u-1"),
        hostname=draw(st.sampled_from(["", "web-0"])),
        linux=cri_pb2.LinuxPodSandboxConfig(
            security_context=cri_pb2.LinuxSandboxSecurityContext(
                privileged=privileged, namespace_options=namespaces
            )
        ),
    )
    return Drawn(
        pod=pod,
        container=container,
        umask=draw(st.sampled_from([None, 0, 0o077])),
        device=draw(st.booleans()),
    )


@pytest.mark.parametrize("runtime", RUNTIMES)
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(drawn=requests())
def test_a_runtime_takes_it_and_a_second_translation_equals(stage: Stage, runtime: str, drawn: Drawn) -> None:
    volume = stage.directory / "volume"
    volume.mkdir(exist_ok=True)
    drawn.container.mounts[0].host_path = str(volume)
    node = DeviceNode(path="/dev/drawn", kind="c", major=1, minor=3, mode=0o600)
    id_ = f"any{next(_numbers)}"

    def translated() -> BundleInputs:
        spec, pod = container_spec(drawn.container, "config"), pod_spec(drawn.pod, "sandbox_config")
        return stage.inputs(
            id_,
            container=spec,
            pod=pod,
            mounts=resolve_mounts(spec.mounts),
            devices=resolve_devices(spec.devices),
            user=resolve_user(stage.rootfs, spec.security.user, ""),
            defaults=BundleDefaults(umask=drawn.umask),
            edits=Edits(mounts=(MountEdit(hostPath=str(volume), containerPath="/edit"),)),
            edit_devices=(ResolvedDevice(node=node, permissions="rw"),) if drawn.device else (),
        )

    config = build(translated()).config

    assert build(translated()).config == config
    with created(stage, runtime, config, id_) as container:
        assert container.pid > 0
