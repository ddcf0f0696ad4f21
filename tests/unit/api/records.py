"""Records for tests of `api/`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from api.translate.container_request import container_spec
from api.translate.pod_request import pod_spec
from oci.cni import NetworkResult
from oci.image import ImageConfig
from oci.workload import ContainerId, ImageId, PodId
from shim.records import (
    ContainerRecord,
    ContainerState,
    ImageRecord,
    PodRecord,
    PodState,
    ProcessRef,
)
from tests.unit.api import requests

IMAGE_ID = ImageId("sha256:" + "ef" * 32)
DIGEST = "docker.io/library/nginx@sha256:" + "12" * 32


def pod(**changes: Any) -> PodRecord:
    record = PodRecord(
        id=PodId(requests.POD_ID),
        realm="kubelet",
        spec=pod_spec(requests.pod_config(), "config", handler="crun"),
        state=PodState.READY,
        created_at=11,
        handler="crun",
        network=NetworkResult(addresses=("10.1.0.5", "fd00::5"), networks=("net",)),
    )
    return replace(record, **changes)


def container(**changes: Any) -> ContainerRecord:
    record = ContainerRecord(
        id=ContainerId(requests.CONTAINER_ID),
        pod_id=PodId(requests.POD_ID),
        realm="kubelet",
        spec=container_spec(requests.container_config(), "config"),
        state=ContainerState.RUNNING,
        created_at=21,
        handler="crun",
        image_id=IMAGE_ID,
        image_ref=DIGEST,
        log_path="/var/log/pods/shop_web_u-1/nginx/3.log",
        stop_signal="SIGQUIT",
        uid=33,
        gid=33,
        supplemental_groups=(5,),
        process=ProcessRef(pid=42, start_time=7),
        started_at=22,
    )
    return replace(record, **changes)


def image(**changes: Any) -> ImageRecord:
    record = ImageRecord(
        id=IMAGE_ID,
        tags=("docker.io/library/nginx:1",),
        digests=(DIGEST,),
        manifest_digest="sha256:" + "12" * 32,
        config=ImageConfig(user="www-data:web", env=("A=b",), diff_ids=("sha256:" + "34" * 32,)),
        layers=("sha256:" + "34" * 32,),
        size=1000,
    )
    return replace(record, **changes)
