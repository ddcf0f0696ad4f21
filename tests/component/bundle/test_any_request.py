"""Any valid request gives a configuration that the runtimes take, and the same one a second time."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oci.bundle import BundleDefaults, ResolvedDevice, build
from oci.bundle.capabilities import KNOWN
from oci.cdi import Edits, MountEdit
from oci.facts import DeviceNode, ResolvedUser
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
from shim.facts.sources import resolve_devices, resolve_mounts
from tests import bundles
from tests.component.bundle.rig import RUNTIMES, Stage, created

_numbers = itertools.count()
NAMES = [capability.removeprefix("CAP_") for capability in KNOWN]
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=40)
CAPABILITIES = st.lists(st.sampled_from([*NAMES, "ALL"]), max_size=4, unique=True).map(tuple)
AMBIENT = st.lists(st.sampled_from(NAMES), max_size=2, unique=True).map(tuple)
HIDDEN = st.lists(
    st.sampled_from(["/proc/kcore", "/proc/asound", "/sys/firmware", "/etc/group", "/nowhere"]), unique=True
).map(tuple)


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """Members of a request; what is impossible together is not drawn together."""
    privileged = draw(st.booleans())
    kind = draw(st.sampled_from([None, ProfileKind.RUNTIME_DEFAULT, ProfileKind.UNCONFINED]))
    readonly = draw(st.booleans())
    memory = draw(st.sampled_from([0, 64 << 20]))
    return {
        "privileged": privileged,
        "security": ContainerSecurity(
            namespaces=NamespaceOptions(
                pid=draw(st.sampled_from([NamespaceMode.CONTAINER, NamespaceMode.NODE]))
            ),
            privileged=privileged,
            readonly_rootfs=draw(st.booleans()),
            no_new_privs=draw(st.booleans()),
            masked_paths=draw(HIDDEN),
            readonly_paths=draw(HIDDEN),
            capabilities=Capabilities(
                add=draw(CAPABILITIES), drop=draw(CAPABILITIES), add_ambient=draw(AMBIENT)
            ),
            seccomp=SecurityProfile(kind=kind) if kind is not None else None,
        ),
        "envs": tuple(
            draw(st.lists(st.tuples(st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,9}\Z"), TEXT), max_size=4))
        ),
        "args": tuple(draw(st.lists(TEXT, max_size=3))),
        "tty": False,
        "resources": Resources(
            cpu_shares=draw(st.sampled_from([0, 2, 512, 1 << 18])),
            cpu_period=draw(st.sampled_from([0, 100_000])),
            cpu_quota=draw(st.sampled_from([0, -1, 20_000])),
            memory_limit=memory,
            memory_swap_limit=draw(st.sampled_from([0, -1, 64 << 20])) if memory else 0,
            oom_score_adj=draw(st.integers(0, 1000)),
        ),
        "mount": {
            "readonly": readonly,
            "container_path": draw(
                st.sampled_from(["/data", "/data/inner/deep", "/etc/hosts.d", "/mnt/a b"])
            ),
            "propagation": draw(st.sampled_from(Propagation)),
            "options": tuple(draw(st.lists(st.sampled_from(["noexec", "nodev", "nosuid"]), unique=True))),
        },
        "user": ResolvedUser(
            uid=draw(st.sampled_from([0, 1000, 2**31 - 1])),
            gid=draw(st.sampled_from([0, 1000])),
            groups=tuple(draw(st.lists(st.integers(0, 70000), max_size=3, unique=True))),
        ),
        "umask": draw(st.sampled_from([None, 0, 0o077])),
        "device": draw(st.booleans()),
    }


@pytest.mark.parametrize("runtime", RUNTIMES)
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(drawn=requests())
def test_a_runtime_takes_it_and_a_second_translation_equals(
    stage: Stage, runtime: str, drawn: dict[str, Any]
) -> None:
    volume = stage.directory / "volume"
    volume.mkdir(exist_ok=True)
    wanted = MountRequest(host_path=str(volume), **drawn["mount"])
    spec = bundles.container(
        command=("/bin/true",),
        mounts=(wanted,),
        **{k: drawn[k] for k in ("security", "envs", "args", "resources")},
    )
    node = DeviceNode(path="/dev/drawn", kind="c", major=1, minor=3, mode=0o600)
    id_ = f"any{next(_numbers)}"
    inputs = stage.inputs(
        id_,
        container=spec,
        pod=bundles.pod(security=PodSecurity(privileged=drawn["privileged"])),
        mounts=resolve_mounts(spec.mounts),
        devices=resolve_devices(spec.devices),
        user=drawn["user"],
        defaults=BundleDefaults(umask=drawn["umask"]),
        edits=Edits(mounts=(MountEdit(hostPath=str(volume), containerPath="/edit"),)),
        edit_devices=(ResolvedDevice(node=node, permissions="rw"),) if drawn["device"] else (),
    )
    config = build(inputs).config

    assert build(inputs).config == config
    with created(stage, runtime, config, id_) as container:
        assert container.pid > 0
