"""Annotations: both families name the pod, and no request can speak in their name."""

from __future__ import annotations

import pytest

from oci.bundle import HandlerTraits, SandboxInitInputs
from oci.bundle.annotations import container_annotations, init_annotations
from oci.cgroup import place
from oci.errors import BadInput
from oci.image import ImageConfig
from oci.workload import Resources
from tests import bundles

POD = {
    "io.kubernetes.cri.sandbox-id": "f" * 64,
    "io.kubernetes.cri.sandbox-name": "web",
    "io.kubernetes.cri.sandbox-namespace": "shop",
    "io.kubernetes.cri.sandbox-uid": "5f0c1e8e-0000-4000-8000-000000000001",
    "io.kubernetes.cri-o.SandboxID": "f" * 64,
    "io.kubernetes.cri-o.KubeName": "web",
    "io.kubernetes.cri-o.Namespace": "shop",
}
OWN = {
    **POD,
    "io.kubernetes.cri.container-type": "container",
    "io.kubernetes.cri.container-name": "app",
    "io.kubernetes.cri.image-name": "docker.io/library/busybox:1.36",
    "io.kubernetes.cri-o.ContainerType": "container",
    "io.kubernetes.cri-o.ContainerName": "app",
}
ASKED = {"run.oci.handler": "wasm", "io.katacontainers.x": "1", "io.kubernetes.cri.sandbox-id": "stolen"}


def test_a_container_carries_both_families() -> None:
    assert container_annotations(bundles.inputs()) == OWN


def test_crun_makes_no_cgroup_of_its_own_below_systemd_s_scope() -> None:
    scope = place("kubepods.slice", "e" * 64, systemd=True)
    alone = {"run.oci.systemd.subgroup": ""}
    inputs = bundles.inputs(
        cgroup=scope,
        container=bundles.container(annotations={"run.oci.systemd.subgroup": "own"}),
        handler=HandlerTraits(annotations=("*",)),
    )
    assert container_annotations(inputs) == {**OWN, **alone}
    init = SandboxInitInputs(pod_id=bundles.POD_ID, pod=bundles.pod(), host=bundles.host(), cgroup=scope)
    assert alone.items() <= init_annotations(init).items()


def test_annotations_of_the_request_pass_only_by_the_handlers_globs() -> None:
    container = bundles.container(annotations=ASKED)
    assert container_annotations(bundles.inputs(container=container)) == OWN
    kata = HandlerTraits(annotations=("io.katacontainers.*",))
    assert container_annotations(bundles.inputs(container=container, handler=kata)) == {
        **OWN,
        "io.katacontainers.x": "1",
    }


def test_not_even_an_open_glob_replaces_what_names_the_pod() -> None:
    inputs = bundles.inputs(
        container=bundles.container(annotations=ASKED),
        pod=bundles.pod(annotations={"io.kubernetes.cri-o.SandboxID": "stolen", "a": "pod"}),
        handler=HandlerTraits(annotations=("*",)),
    )
    assert container_annotations(inputs) == {
        **OWN,
        "run.oci.handler": "wasm",
        "io.katacontainers.x": "1",
        "a": "pod",
    }


def test_labels_of_the_image_never_become_annotations() -> None:
    image = ImageConfig(
        labels={"io.kubernetes.cri.sandbox-id": "stolen", "run.oci.handler": "x"}, cmd=("sh",)
    )
    inputs = bundles.inputs(image=image, handler=HandlerTraits(annotations=("*",)))
    assert container_annotations(inputs) == OWN


def test_a_flood_of_annotations_is_refused() -> None:
    container = bundles.container(annotations={"bomb": "x" * (256 * 1024)})
    with pytest.raises(BadInput, match=r"config\.annotations: 262148 characters together, over 262144"):
        container_annotations(bundles.inputs(container=container))


def test_a_pods_first_process_carries_the_sizes_too() -> None:
    inputs = SandboxInitInputs(
        pod_id=bundles.POD_ID,
        pod=bundles.pod(resources=Resources(cpu_quota=5, cpu_shares=7, cpu_period=9, memory_limit=11)),
        host=bundles.host(),
        cgroup=bundles.inputs().cgroup,
    )
    assert init_annotations(inputs) == {
        **POD,
        "io.kubernetes.cri.container-type": "sandbox",
        "io.kubernetes.cri.sandbox-log-directory": "/var/log/pods/shop_web",
        "io.kubernetes.cri.sandbox-cpu-period": "9",
        "io.kubernetes.cri.sandbox-cpu-quota": "5",
        "io.kubernetes.cri.sandbox-cpu-shares": "7",
        "io.kubernetes.cri.sandbox-memory": "11",
        "io.kubernetes.cri-o.ContainerType": "sandbox",
        "io.kubernetes.cri-o.ContainerName": "POD",
    }
