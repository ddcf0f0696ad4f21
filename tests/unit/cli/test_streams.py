"""Detach keys, local ports, and what `exec`, `attach` and `port-forward` ask the daemon for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.streaming.channels import Wanted
from cli.commands.forward import parse_ports
from cli.detach import DEFAULT, DetachKeys, parse_keys
from cli.streams import Trust, converse
from oci.errors import BadInput
from tests.unit.cli.service import Service, container, pod


@pytest.mark.parametrize(
    ("text", "keys"),
    [(DEFAULT, b"\x10\x11"), ("ctrl-a,d", b"\x01d"), ("ctrl-]", b"\x1d"), ("", b""), ("x", b"x")],
)
def test_detach_keys_are_the_bytes_that_a_terminal_sends(text: str, keys: bytes) -> None:
    assert parse_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-ab", "ab", "ctrl-p,", "é"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--detach-keys"):
        parse_keys(text)


def test_the_keys_are_found_wherever_the_input_is_cut() -> None:
    typed = b"ls\r\x10x\x10\x10\x11rest"
    whole = DetachKeys(b"\x10\x11").receive(typed)
    bytewise, sent = DetachKeys(b"\x10\x11"), b""
    for byte in typed:
        more, found = bytewise.receive(bytes([byte]))
        sent += more
        if found:
            break
    assert whole == (sent, True) == (b"ls\r\x10x\x10", True)


@given(st.binary(max_size=50))
def test_without_keys_everything_is_sent(typed: bytes) -> None:
    assert DetachKeys(b"").receive(typed) == (typed, False)


@given(st.binary(max_size=50).filter(lambda typed: b"\x10\x11" not in typed and not typed.endswith(b"\x10")))
def test_input_without_the_keys_passes_unchanged(typed: bytes) -> None:
    assert DetachKeys(b"\x10\x11").receive(typed) == (typed, False)


def test_ports_are_one_or_two_numbers() -> None:
    assert [parse_ports(text) for text in ("80", "8080:80", "0:80")] == [(80, 80), (8080, 80), (0, 80)]


@pytest.mark.parametrize("text", ["", "x", "80:", "0", "80:0", "1:2:3", "65536", "-1:80"])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="PORT"):
        parse_ports(text)


def test_a_time_limit_and_a_terminal_do_not_go_together() -> None:
    service = Service()
    owner = pod("a", "default", "web")
    service.objects.pods.append(owner)
    service.objects.containers.append(container("b", owner, "main"))
    assert service.run("exec", "-it", "--timeout", "5", "web", "sh") == 2
    assert service.changing() == []


def test_a_client_certificate_that_cannot_be_shown_is_told_before_anything_is_asked(tmp_path: Path) -> None:
    certificate = tmp_path / "client.pem"
    trust = Trust(server=b"", pair=(certificate, certificate))

    def converse_with_it() -> None:
        wanted = Wanted(stdin=False, stdout=True, stderr=True, tty=False)
        asyncio.run(converse("https://127.0.0.1:1/exec/secret", wanted, trust=trust))

    with pytest.raises(BadInput, match=f"^client certificate {certificate}: No such file or directory$"):
        converse_with_it()
    certificate.write_text("no certificate")
    with pytest.raises(BadInput, match=f"^client certificate {certificate}: no certificate and key that fit"):
        converse_with_it()


@pytest.mark.parametrize(
    "words", [("exec", "-i", "web", "true"), ("attach", "web"), ("port-forward", "web", "80")]
)
def test_a_client_key_without_its_certificate_is_refused(words: tuple[str, ...]) -> None:
    service = Service()
    owner = pod("a", "default", "web")
    service.objects.pods.append(owner)
    service.objects.containers.append(container("b", owner, "main"))
    assert service.run(words[0], "--client-key", "/key.pem", *words[1:]) == 2
    assert service.changing() == []
