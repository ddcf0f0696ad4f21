"""OCI image specification 1.1 as values: what an image's configuration says about running it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from oci.errors import BadInput
from oci.reference import is_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """The `config` member of an image configuration, with the platform and the diff ids beside it."""

    architecture: str = ""
    os: str = "linux"
    user: str = ""
    env: tuple[str, ...] = ()  # "NAME=value"
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    diff_ids: tuple[str, ...] = ()
    created: str = ""
    variant: str = ""


def parse_config(body: bytes, *, what: str = "image configuration") -> ImageConfig:
    """The image configuration in `body` (config.md; Docker's has the same members).

    null counts as absent, as Go writes it. Raises BadInput that begins with `what` and names the member.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as failure:
        raise BadInput(f"{what}: not JSON") from failure
    if not isinstance(document, dict):
        raise BadInput(f"{what}: not a JSON object")
    config = document.get("config") or {}
    rootfs = document.get("rootfs") or {}
    if not isinstance(config, dict):
        raise BadInput(f"{what}: config is not an object")
    if not isinstance(rootfs, dict) or rootfs.get("type", "layers") != "layers":
        raise BadInput(f"{what}: rootfs is not of type layers")
    diff_ids = _words(rootfs, "diff_ids", f"{what}: rootfs")
    for diff_id in diff_ids:
        if not is_digest(diff_id):
            raise BadInput(f"{what}: rootfs.diff_ids: {diff_id[:100]!r} is not a sha256 digest")
    inside = f"{what}: config"
    return ImageConfig(
        architecture=_text(document, "architecture", what),
        os=_text(document, "os", what) or "linux",
        variant=_text(document, "variant", what),
        user=_text(config, "User", inside),
        env=_words(config, "Env", inside),
        entrypoint=_words(config, "Entrypoint", inside),
        cmd=_words(config, "Cmd", inside),
        working_dir=_text(config, "WorkingDir", inside),
        volumes=tuple(sorted(_map(config, "Volumes", inside))),
        stop_signal=_text(config, "StopSignal", inside),
        labels={
            name: _text({name: text}, name, inside) for name, text in _map(config, "Labels", inside).items()
        },
        diff_ids=diff_ids,
        created=_text(document, "created", what),
    )


def _text(document: dict[str, Any], name: str, where: str) -> str:
    value = document.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadInput(f"{where}: {name[:80]} is not a text")
    return value


def _words(document: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
    value = document.get(name)
    if value is None:
        return ()
    if isinstance(value, str) and name in ("Cmd", "Entrypoint"):
        return (value,)
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise BadInput(f"{where}: {name} is not a list of texts")
    return tuple(value)


def _map(document: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    value = document.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadInput(f"{where}: {name} is not a map")
    return value
