"""Images: their names and credentials as asked, and what is said of them."""

from __future__ import annotations

import json
from typing import Any

from api.ports import FilesystemUse
from api.proto import cri_pb2
from api.translate import checks
from oci.errors import BadInput
from oci.registry_auth import Credentials
from oci.workload import ImageSpec
from shim.records import ImageRecord

# docs of the distribution specification: a name has at most 255 characters, a digest 71 and more.
_MAX_REFERENCE = 1024


def reference(message: cri_pb2.ImageSpec, path: str) -> str:
    """The name of an image; its grammar is checked where references are parsed."""
    if not message.image:
        raise BadInput(f"{path}.image: empty")
    return checks.word(checks.text(message.image, f"{path}.image", limit=_MAX_REFERENCE), f"{path}.image")


def image_spec(message: cri_pb2.ImageSpec, path: str) -> ImageSpec:
    return ImageSpec(
        image=reference(message, path),
        user_specified_image=checks.line(message.user_specified_image, f"{path}.user_specified_image"),
        runtime_handler=checks.word(message.runtime_handler, f"{path}.runtime_handler"),
        annotations=checks.mapping(message.annotations, f"{path}.annotations"),
    )


def image_spec_to_wire(spec: ImageSpec, *, image: str = "", image_ref: str = "") -> cri_pb2.ImageSpec:
    """As requested; `image` replaces the name where the answer must show another one."""
    return cri_pb2.ImageSpec(
        image=image or spec.image,
        user_specified_image=spec.user_specified_image,
        runtime_handler=spec.runtime_handler,
        annotations=spec.annotations,
        image_ref=image_ref,
    )


def credentials(message: cri_pb2.AuthConfig, path: str) -> Credentials:
    """No value of it is ever part of an error."""
    for field in ("username", "password", "auth", "server_address", "identity_token", "registry_token"):
        value = getattr(message, field)
        # NULs at the end of `auth` are a habit of old clients and are trimmed where it is decoded.
        if field != "auth" and ("\0" in value or "\n" in value or "\r" in value):
            raise BadInput(f"{path}.{field}: contains a NUL or the end of a line")
        if len(value) > 64 * 1024:
            raise BadInput(f"{path}.{field}: {len(value)} characters, more than any registry takes")
    return Credentials(
        username=message.username,
        password=message.password,
        auth=message.auth,
        server_address=message.server_address,
        identity_token=message.identity_token,
        registry_token=message.registry_token,
    )


def image(record: ImageRecord) -> cri_pb2.Image:
    """Equal for every name by which the image may have been asked for."""
    user = record.config.user.partition(":")[0]
    numeric = user.isascii() and user.isdigit() and len(user) < 19  # what fits into 64 bits for sure
    return cri_pb2.Image(
        id=record.id,
        repo_tags=record.tags,
        repo_digests=record.digests,
        size=max(record.size, 1),  # a client takes 0 for a broken answer
        uid=cri_pb2.Int64Value(value=int(user)) if numeric else None,
        username="" if numeric else user,
        spec=cri_pb2.ImageSpec(image=record.id, annotations=record.annotations),
        pinned=record.pinned,
    )


def details(record: ImageRecord) -> str:
    """The verbose answer: the image's configuration in the shape of the OCI image specification, as JSON."""
    config = record.config
    spec: dict[str, Any] = {
        "created": config.created,
        "architecture": config.architecture,
        "os": config.os,
        "config": {
            "User": config.user,
            "Env": list(config.env),
            "Entrypoint": list(config.entrypoint),
            "Cmd": list(config.cmd),
            "WorkingDir": config.working_dir,
            "Volumes": {path: {} for path in config.volumes},
            "StopSignal": config.stop_signal,
            "Labels": dict(config.labels),
        },
        "rootfs": {"type": "layers", "diff_ids": list(config.diff_ids)},
    }
    return json.dumps({"imageSpec": spec, "manifestDigest": record.manifest_digest, "layers": record.layers})


def filesystem(use: FilesystemUse) -> cri_pb2.FilesystemUsage:
    return cri_pb2.FilesystemUsage(
        timestamp=use.timestamp,
        fs_id=cri_pb2.FilesystemIdentifier(mountpoint=str(use.mountpoint)),
        used_bytes=cri_pb2.UInt64Value(value=use.used_bytes),
        inodes_used=cri_pb2.UInt64Value(value=use.inodes_used),
    )
