"""The runtime itself -> Version, Status and RuntimeConfig answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from api.ports import NodeStatus
from api.proto import cri_pb2
from shim.runtimes.driver import HandlerFeatures

KUBELET_API = "0.1.0"
"""What kubelet calls the version of its runtime API; it refuses any other."""


def version(crisp: str) -> cri_pb2.VersionResponse:
    return cri_pb2.VersionResponse(
        version=KUBELET_API, runtime_name="crisp", runtime_version=crisp, runtime_api_version="v1"
    )


def status(node: NodeStatus, details: Mapping[str, Any]) -> cri_pb2.StatusResponse:
    """`details` is empty unless a verbose answer was asked for; each value becomes one JSON text."""
    handlers = [_handler(handler.name, handler.features) for handler in node.handlers]
    handlers += [
        _handler("", handler.features) for handler in node.handlers if handler.name == node.default_handler
    ]
    return cri_pb2.StatusResponse(
        status=cri_pb2.RuntimeStatus(
            conditions=[
                cri_pb2.RuntimeCondition(
                    type=condition.type,
                    status=condition.status,
                    reason=condition.reason,
                    message=condition.message,
                )
                for condition in node.conditions
            ]
        ),
        info={key: json.dumps(value) for key, value in details.items()},
        runtime_handlers=handlers,
        features=cri_pb2.RuntimeFeatures(
            supplemental_groups_policy=node.supplemental_groups_policy,
            user_namespaces_host_network=node.user_namespaces_host_network,
            mount_options=node.mount_options,
        ),
    )


def _handler(name: str, features: HandlerFeatures) -> cri_pb2.RuntimeHandler:
    return cri_pb2.RuntimeHandler(
        name=name,
        features=cri_pb2.RuntimeHandlerFeatures(
            recursive_read_only_mounts=features.recursive_read_only_mounts,
            user_namespaces=features.user_namespaces,
        ),
    )


def runtime_config(*, systemd_cgroups: bool) -> cri_pb2.RuntimeConfigResponse:
    driver = cri_pb2.SYSTEMD if systemd_cgroups else cri_pb2.CGROUPFS
    return cri_pb2.RuntimeConfigResponse(linux=cri_pb2.LinuxRuntimeConfiguration(cgroup_driver=driver))
