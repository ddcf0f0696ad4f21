"""Base specifications: what containers of a handler are based on, under what Crisp writes itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oci.bundle import HandlerTraits, build
from oci.bundle.template import BaseSpec, parse
from oci.errors import BadInput, Unsupported
from tests import bundles


def read(**document: Any) -> BaseSpec:
    return parse(json.dumps(document).encode(), source="/etc/base.json")


def built(base: BaseSpec) -> dict[str, Any]:
    return build(bundles.inputs(handler=HandlerTraits(base=base))).config


def test_an_empty_one_changes_nothing() -> None:
    assert built(read(ociVersion="1.2.0")) == built(BaseSpec())


def test_what_crisp_writes_wins_and_the_rest_is_added() -> None:
    limits = [
        {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]
    fuse = {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}
    rule = {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}
    cache = {"destination": "/var/cache", "type": "tmpfs", "source": "tmpfs"}
    base = read(
        process={"env": ["HOSTNAME=base", "NODE=a"], "rlimits": limits},
        mounts=[{"destination": "/etc/hosts", "type": "bind", "source": "/base"}, cache],
        hooks={"poststop": [{"path": "/a"}]},
        annotations={"io.kubernetes.cri.sandbox-id": "base", "io.example": "b"},
        linux={"sysctl": {"net.core.somaxconn": "9"}, "devices": [fuse], "resources": {"devices": [rule]}},
    )
    plain, made = built(BaseSpec()), built(base)

    assert made["process"]["env"] == ["NODE=a", *plain["process"]["env"]]
    assert made["process"]["rlimits"] == [limits[1], *plain["process"]["rlimits"]]
    assert [m for m in made["mounts"] if m not in plain["mounts"]] == [cache]
    assert [m["destination"].count("/") for m in made["mounts"]] == sorted(
        m["destination"].count("/") for m in made["mounts"]
    )
    assert made["hooks"] == {"poststop": [{"path": "/a"}]}
    assert made["annotations"] == {**plain["annotations"], "io.example": "b"}
    assert made["linux"]["sysctl"] == {"net.core.somaxconn": "9"}
    assert made["linux"]["devices"] == [fuse]
    assert made["linux"]["resources"]["devices"] == [plain["linux"]["resources"]["devices"][0], rule]
    assert built(BaseSpec()) == plain


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"root": {"path": "/"}}, "root: nothing that containers can be based on"),
        ({"process": {"user": {"uid": 0}}}, "process.user: nothing that"),
        ({"process": {"capabilities": {}}}, "process.capabilities: nothing that"),
        ({"linux": {"namespaces": []}}, "linux.namespaces: nothing that"),
        ({"linux": {"seccomp": {}}}, "linux.seccomp: nothing that"),
        ({"linux": []}, "linux: not an object"),
        ({"mounts": {}}, "mounts: not a list"),
        ({"mounts": [{"source": "/a"}]}, "mounts: an entry has no destination"),
        ({"mounts": [{"destination": "/proc/sys"}]}, "mounts: '/proc/sys' is no place"),
        ({"mounts": [{"destination": "/"}]}, "mounts: '/' is no place"),
        ({"process": {"env": ["A"]}}, "process.env: an entry is not NAME=VALUE"),
        ({"process": {"rlimits": [{}]}}, "process.rlimits: an entry has no type"),
        ({"annotations": {"a": 1}}, "annotations: a value is not a text"),
        ({"hooks": {"poststop": {}}}, "hooks: a stage is not a list"),
    ],
)
def test_any_other_member_is_refused_by_its_path(document: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput) as caught:
        read(**document)
    assert caught.value.message.startswith(f"base specification /etc/base.json: {words}")


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"[" * 100000])
def test_what_is_no_object_is_refused(text: bytes) -> None:
    with pytest.raises(BadInput, match="not "):
        parse(text, source="/etc/base.json")


def test_one_that_went_refuses_new_containers() -> None:
    with pytest.raises(Unsupported, match="gone"):
        built(BaseSpec(problem="gone"))
