"""Manifests of pods, as values; knows no kubelet and no API server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.images import catalogue

IDLE = "trap 'exit 0' TERM; while :; do sleep 0.2; done"


def pod(name: str, *containers: Mapping[str, Any], **spec: Any) -> dict[str, Any]:
    """A pod's manifest; a container without image gets busybox."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            **spec,
            "containers": [_container(entry) for entry in containers],
            **(
                {"initContainers": [_container(e) for e in spec["initContainers"]]}
                if "initContainers" in spec
                else {}
            ),
        },
    }


def sh(name: str, script: str, **more: Any) -> dict[str, Any]:
    """A container that runs a shell script."""
    return {"name": name, "command": ["sh", "-c", script], **more}


def _container(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"image": catalogue.BUSYBOX, "imagePullPolicy": "IfNotPresent", **entry}
