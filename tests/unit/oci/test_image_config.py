"""Image configurations: Docker's and OCI's, with null where a list or map could be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oci.errors import BadInput
from oci.image import ImageConfig, parse_config

DIFF = "sha256:" + "2" * 64


def test_every_member_is_read() -> None:
    document = {
        "created": "2026-01-01T00:00:00Z",
        "architecture": "arm64",
        "variant": "v8",
        "os": "linux",
        "config": {
            "User": "1000:10",
            "Env": ["A=1", "B="],
            "Entrypoint": ["/a"],
            "Cmd": ["b", "c"],
            "WorkingDir": "/w",
            "Volumes": {"/z": {}, "/a": {}},
            "StopSignal": "SIGQUIT",
            "Labels": {"x": "y"},
        },
        "rootfs": {"type": "layers", "diff_ids": [DIFF]},
    }
    assert parse_config(json.dumps(document).encode()) == ImageConfig(
        architecture="arm64",
        os="linux",
        variant="v8",
        user="1000:10",
        env=("A=1", "B="),
        entrypoint=("/a",),
        cmd=("b", "c"),
        working_dir="/w",
        volumes=("/a", "/z"),
        stop_signal="SIGQUIT",
        labels={"x": "y"},
        diff_ids=(DIFF,),
        created="2026-01-01T00:00:00Z",
    )


@pytest.mark.parametrize(
    "document", [{}, {"config": None, "rootfs": None}, {"config": {"Env": None, "Labels": None}}]
)
def test_null_is_absent(document: dict[str, Any]) -> None:
    assert parse_config(json.dumps(document).encode()) == ImageConfig()


def test_a_command_as_one_text_is_one_word() -> None:
    assert parse_config(b'{"config": {"Cmd": "run me"}}').cmd == ("run me",)


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ([], "not a JSON object"),
        ({"config": [1]}, "config is not an object"),
        ({"config": {"Env": "A=1"}}, "config: Env is not a list of texts"),
        ({"config": {"Env": [1]}}, "config: Env is not a list of texts"),
        ({"config": {"User": 5}}, "config: User is not a text"),
        ({"config": {"Labels": {"a": 1}}}, "config: a is not a text"),
        ({"config": {"Volumes": ["/a"]}}, "config: Volumes is not a map"),
        ({"rootfs": {"type": "windows"}}, "rootfs is not of type layers"),
        (
            {"rootfs": {"type": "layers", "diff_ids": ["../x"]}},
            "rootfs.diff_ids: '../x' is not a sha256 digest",
        ),
    ],
)
def test_a_member_of_the_wrong_kind_is_named(document: Any, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        parse_config(json.dumps(document).encode(), what="image x")
