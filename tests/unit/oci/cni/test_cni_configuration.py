"""CNI configuration files: what is accepted, what is refused, and with which words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oci.cni.configuration import Network, Plugin, from_document, is_configuration_file, parse
from oci.errors import BadInput

BRIDGE = {"type": "bridge", "bridge": "cni0", "ipam": {"type": "host-local"}}
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True, "bandwidth": False}}


def read(document: Any) -> Network:
    return parse(json.dumps(document).encode(), source="10-net.conflist")


def conflist(**changes: Any) -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [BRIDGE, PORTMAP]} | changes


def test_a_list_keeps_its_plugins_in_order_with_all_their_keys() -> None:
    assert read(conflist()) == Network(
        name="pods",
        version="1.0.0",
        plugins=(
            Plugin(type="bridge", capabilities=frozenset(), keys=BRIDGE),
            Plugin(type="portmap", capabilities=frozenset({"portMappings"}), keys=PORTMAP),
        ),
        source="10-net.conflist",
    )


def test_a_single_plugin_is_a_list_of_one() -> None:
    document = {"cniVersion": "0.3.1", "name": "pods", **BRIDGE}
    assert read(document) == Network(
        name="pods",
        version="0.3.1",
        plugins=(Plugin(type="bridge", capabilities=frozenset(), keys=document),),
        source="10-net.conflist",
    )


@pytest.mark.parametrize("document", [conflist(), conflist(disableCheck="TRUE", disableGC=True)])
def test_a_network_survives_its_own_document(document: dict[str, Any]) -> None:
    network = read(document)
    assert from_document(network.document(), source="10-net.conflist") == network


def test_switches_are_read_as_booleans_and_as_words() -> None:
    network = read(conflist(disableCheck="true", disableGC=True))
    assert (network.disable_check, network.disable_gc) == (True, True)


@pytest.mark.parametrize(
    ("version", "offered", "chosen"),
    [
        ("1.0.0", [], "1.0.0"),
        ("0.4.0", ["0.3.1", "1.1.0", "1.0.0"], "1.1.0"),
        ("0.4.0", ["2.0.0", "1.0.0"], "1.0.0"),
        ("9.9.9", ["1.0.0"], "1.0.0"),
        ("", [], "0.2.0"),
    ],
)
def test_the_newest_version_that_is_understood_is_chosen(
    version: str, offered: list[str], chosen: str
) -> None:
    assert read(conflist(cniVersion=version, cniVersions=offered)).version == chosen


def test_versions_are_compared_by_age() -> None:
    network = read(conflist(cniVersion="0.4.0"))
    assert [network.at_least(v) for v in ("0.3.1", "0.4.0", "1.0.0")] == [True, True, False]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "not a JSON object"),
        ({"name": "pods"}, "neither `plugins` nor `type` is there"),
        (conflist(plugins=[]), "plugins: "),
        (conflist(plugins={}), "plugins: "),
        (conflist(plugins=["bridge"]), r"plugins\.0: "),
        (conflist(plugins=[{"bridge": "cni0"}]), "type: "),
        (conflist(plugins=[{"type": "../../bin/sh"}]), "type: "),
        (conflist(plugins=[{"type": ""}]), "type: "),
        (
            conflist(plugins=[BRIDGE | {"capabilities": {"portMappings": "yes"}}]),
            "capabilities.portMappings: ",
        ),
        (conflist(name=""), "name: "),
        (conflist(name="a/b"), "name: "),
        (conflist(name=None), "name: "),
        (conflist(disableCheck="maybe"), "disableCheck"),
        (
            conflist(cniVersion="2.0.0"),
            r"cniVersion: '2\.0\.0' is not supported, supported are 0\.1\.0, .*1\.1\.0",
        ),
    ],
)
def test_a_wrong_configuration_is_refused_by_its_key(document: Any, words: str) -> None:
    with pytest.raises(BadInput, match=r"CNI configuration 10-net\.conflist: .*" + words):
        read(document)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(BadInput, match=r"CNI configuration x\.conf: not JSON"):
        parse(data, source="x.conf")


def test_files_count_by_their_ending() -> None:
    names = ["10-a.conf", "b.conflist", "c.json", "d.conf.bak", "e.conf~", ".f.conf", "g.yaml", "conf"]
    assert [name for name in names if is_configuration_file(name)] == ["10-a.conf", "b.conflist", "c.json"]
