"""What plugins answer, in every version, and what is no answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oci.cni.result import PluginFailed, failure, ordered, parse_result
from oci.errors import Busy

STAGE = "CNI ADD, network pods, plugin bridge"


def addresses(document: Any, interface: str = "eth0") -> tuple[str, ...]:
    output = json.dumps(document).encode()
    answer = parse_result(output, interface=interface, stage=STAGE)
    assert answer.document == document
    return answer.addresses


def current(ips: list[dict[str, Any]], version: str = "1.0.0") -> dict[str, Any]:
    interfaces = [
        {"name": "cni0", "mac": "00:11:22:33:44:55"},
        {"name": "veth1"},
        {"name": "eth0", "sandbox": "/run/netns/x"},
        {"name": "net1", "sandbox": "/run/netns/x"},
    ]
    return {"cniVersion": version, "interfaces": interfaces, "ips": ips, "dns": {}}


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_addresses_of_the_asked_interface_are_taken(version: str) -> None:
    ips = [
        {"version": "6", "address": "fd00::5/64", "interface": 2},
        {"version": "4", "address": "10.0.0.5/24", "gateway": "10.0.0.1", "interface": 2},
        {"version": "4", "address": "10.9.9.9/24", "interface": 3},
        {"version": "4", "address": "10.0.0.1/24", "interface": 0},
    ]
    assert addresses(current(ips, version)) == ("fd00::5", "10.0.0.5")
    assert addresses(current(ips, version), "net1") == ("10.9.9.9",)


def test_an_address_without_an_interface_belongs_to_the_asked_one() -> None:
    assert addresses({"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.2/16"}]}) == ("10.1.0.2",)
    assert addresses(current([{"address": "10.1.0.2/16"}])) == ("10.1.0.2",)


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_the_first_versions_have_one_address_a_family(version: str) -> None:
    old = {"cniVersion": version, "ip4": {"ip": "10.2.0.3/24"}, "ip6": {"ip": "fd00::3/64"}}
    assert addresses(old) == ("10.2.0.3", "fd00::3")


def test_a_result_may_hold_no_address_and_each_only_once() -> None:
    assert addresses({"cniVersion": "1.0.0"}) == ()
    assert addresses({"cniVersion": "1.0.0", "interfaces": None, "ips": None}) == ()
    twice = {"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.2/24"}, {"address": "10.0.0.2/16"}]}
    assert addresses(twice) == ("10.0.0.2",)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (b"", "no JSON"),
        (b"Segmentation fault", "no JSON: 'Segmentation fault'"),
        (b"[]", "no JSON object"),
        (b"[" * 100_000, "no JSON"),
        (b'{"ips": 3}', "ips: "),
        (b'{"ips": [{"address": "ten"}]}', "no address"),
        (b'{"ips": [{"address": "10.0.0.1/99"}]}', "no address"),
        (b'{"ips": [{"interface": 0}]}', r"ips\.0\.address: "),
        (b'{"interfaces": [{"name": "a"}], "ips": [{"address": "10.0.0.1/8", "interface": 7}]}', "of none"),
        (
            b'{"interfaces": [{"name": "a"}], "ips": [{"address": "10.0.0.1/8", "interface": -1}]}',
            "interface: ",
        ),
    ],
)
def test_nonsense_is_a_failure_that_shows_it(output: bytes, words: str) -> None:
    with pytest.raises(PluginFailed, match=f"{STAGE}: .*{words}"):
        parse_result(output, interface="eth0", stage=STAGE)


def told(**error: Any) -> Exception:
    return failure(1, json.dumps({"cniVersion": "1.0.0"} | error).encode(), b"noise", stage=STAGE)


def test_a_plugins_error_keeps_its_code_and_words() -> None:
    error = told(code=7, msg="bad config", details="no bridge")
    assert isinstance(error, PluginFailed)
    assert (error.code, str(error)) == (
        7,
        f"{STAGE}: bad config: no bridge (code 7, invalid network configuration)",
    )
    assert str(told(code=123)) == f"{STAGE}: no message (code 123)"


def test_try_again_later_is_busy() -> None:
    error = told(code=11, msg="agent is starting")
    assert (type(error), str(error)) == (Busy, f"{STAGE}: agent is starting (code 11, try again later)")


@pytest.mark.parametrize(
    ("status", "output", "errors", "words"),
    [
        (1, b"", b"", "status 1: no message"),
        (2, b"", b"panic:\n  nil map", "status 2: 'panic: nil map'"),
        (-9, b"", b"", "killed by signal 9: no message"),
        (1, b"not json", b"", "status 1: 'not json'"),
        (1, b"{}", b"", "status 1: '{}'"),
    ],
)
def test_a_plugin_that_dies_without_an_error_is_described(
    status: int, output: bytes, errors: bytes, words: str
) -> None:
    error = failure(status, output, errors, stage=STAGE)
    assert (type(error), str(error)) == (PluginFailed, f"{STAGE}: {words}")


def test_the_preferred_family_leads_and_each_keeps_its_order() -> None:
    mixed = ("fd00::2", "10.0.0.2", "fd00::1", "10.0.0.1")
    assert ordered(mixed, "ipv4") == ("10.0.0.2", "10.0.0.1", "fd00::2", "fd00::1")
    assert ordered(mixed, "ipv6") == ("fd00::2", "fd00::1", "10.0.0.2", "10.0.0.1")
    assert ordered(mixed, "cni") == mixed
