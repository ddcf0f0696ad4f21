"""The pod's files: one value, one word or one line, whatever the value contains."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.bundle.podfiles import MOST_BYTES, hostname_file, hosts_file, resolv_conf
from oci.errors import BadInput
from oci.workload import DnsConfig


def test_without_a_configuration_the_hosts_resolver_is_copied() -> None:
    assert resolv_conf(None, "nameserver 1.1.1.1\n# x\n") == "nameserver 1.1.1.1\n# x\n"


def test_an_empty_configuration_is_an_empty_file() -> None:
    assert resolv_conf(DnsConfig(), "nameserver 1.1.1.1\n") == ""


def test_servers_have_a_line_each_searches_and_options_one_together() -> None:
    dns = DnsConfig(
        servers=("10.10.10.10", "fe80::1%eth0"), searches=("google.com", "a.b"), options=("ndots:8", "rotate")
    )
    assert resolv_conf(dns, "") == (
        "search google.com a.b\nnameserver 10.10.10.10\nnameserver fe80::1%eth0\noptions ndots:8 rotate\n"
    )


@pytest.mark.parametrize(
    "bad", ["1.1.1.1\nnameserver 6.6.6.6", "a b", "", "a\r", "a\0", "a\x85b", "a\u2028b", "x" * 1025]
)
@pytest.mark.parametrize("member", ["servers", "searches", "options"])
def test_a_value_that_would_be_more_than_one_word_is_refused(member: str, bad: str) -> None:
    with pytest.raises(BadInput, match=rf"^config\.dns_config\.{member}\[1\]: "):
        resolv_conf(DnsConfig(**{member: ("ok", bad)}), "")


@given(st.lists(st.text(max_size=20), max_size=3), st.lists(st.text(max_size=20), max_size=3))
def test_no_value_adds_a_line(servers: list[str], searches: list[str]) -> None:
    try:
        text = resolv_conf(DnsConfig(servers=tuple(servers), searches=tuple(searches)), "")
    except BadInput:
        return
    assert len(text.splitlines()) == len(servers) + bool(searches)


def test_the_host_name_is_one_line() -> None:
    assert hostname_file("web-0") == "web-0\n"


@pytest.mark.parametrize("bad", ["", "a\n", "a\n127.0.0.1 x", "a b", "-a", "a" * 65, "a\0", "a:b", "ä"])
def test_what_is_no_host_name_is_refused(bad: str) -> None:
    with pytest.raises(BadInput, match=r"^config\.hostname: "):
        hostname_file(bad)


def test_hosts_are_the_hosts_own_with_the_pods_line() -> None:
    assert hosts_file("127.0.0.1 localhost") == "127.0.0.1 localhost\n"
    assert hosts_file("") == "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    assert hosts_file("127.0.0.1 localhost\n", hostname="web-0", addresses=("10.1.0.2", "fd00::2")) == (
        "127.0.0.1 localhost\n10.1.0.2\tweb-0\nfd00::2\tweb-0\n"
    )


def test_a_huge_file_of_the_host_is_not_copied() -> None:
    for make in (hosts_file, lambda text: resolv_conf(None, text)):
        with pytest.raises(BadInput, match="cannot be copied into pods"):
            make("x" * (MOST_BYTES + 1))
