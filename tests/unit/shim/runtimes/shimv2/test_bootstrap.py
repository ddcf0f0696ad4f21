"""What shims of each generation print at `start`, where they listen, and what they are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from oci.errors import BadInput
from shim.runtimes.shimv2 import bootstrap
from shim.runtimes.shimv2.addresses import Address, HybridVsock, Unix, Vsock, parse_address, shown
from shim.runtimes.shimv2.bootstrap import Reply
from shim.runtimes.shimv2.families import family_of, program_of
from shim.runtimes.shimv2.proto import bootstrap_pb2, runc_options_pb2, task_pb2


@pytest.mark.parametrize(
    ("output", "reply"),
    [
        (b"unix:///run/containerd/s/0a", Reply(address="unix:///run/containerd/s/0a", version=2)),
        (b"unix:///run/containerd/s/0a\n", Reply(address="unix:///run/containerd/s/0a", version=2)),
        (b"containerd-shim/abc.sock", Reply(address="containerd-shim/abc.sock", version=2)),
        (b'{"version":3,"address":"unix:///s","protocol":"ttrpc"}', Reply(address="unix:///s", version=3)),
        (b'{"version":2,"address":"unix:///s"}\n', Reply(address="unix:///s", version=2)),
        (
            bootstrap_pb2.BootstrapResult(
                version=3, address="unix:///s", protocol="ttrpc"
            ).SerializeToString(),
            Reply(address="unix:///s", version=3),
        ),
    ],
    ids=["raw", "raw with newline", "abstract", "json 3", "json 2", "protobuf"],
)
def test_each_generations_answer_is_understood(output: bytes, reply: Reply) -> None:
    assert bootstrap.parse_reply(output) == reply


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (b"", "printed nothing"),
        (b" \n", "printed nothing"),
        (b"{", "no JSON object"),
        (b'{"version":3}', "no address"),
        (b'{"version":"3","address":"unix:///s"}', "version '3'"),
        (b'{"version":9,"address":"unix:///s"}', "version 9"),
        (b'{"version":3,"address":"unix:///s","protocol":"grpc"}', "protocol 'grpc'"),
        (b"\xff\xfe\xfd", "no address"),
        (bootstrap_pb2.BootstrapResult(version=7, address="unix:///s").SerializeToString(), "version 7"),
    ],
)
def test_an_answer_that_is_none_is_refused_with_what_it_was(output: bytes, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        bootstrap.parse_reply(output)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:///run/containerd/s/x", Unix(path="/run/containerd/s/x")),
        ("/run/containerd/s/x", Unix(path="/run/containerd/s/x")),
        ("shim.sock", Unix(path="\0shim.sock")),
        ("vsock://3:1024", Vsock(cid=3, port=1024)),
        ("hvsock:///run/vm.sock:1024", HybridVsock(path="/run/vm.sock", port=1024)),
    ],
)
def test_addresses_of_every_kind_are_read(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(shown(address).replace("@", "")) == address


@pytest.mark.parametrize(
    "text",
    ["", "tcp://1.2.3.4:5", "vsock://x:1", "vsock://1:99999999999", "hvsock://rel:1", "unix://", "a b",
     "unix:///" + "x" * 107, "vsock://4294967296:1"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="shim address"):
        parse_address(text)


@pytest.mark.parametrize(
    ("version", "wants"),
    [
        ("1.6.20~ds1", False),
        ("1.7.30", False),
        ("v2.2.9", False),
        ("v2.3.0", True),
        ("v2.4.2", True),
        ("", False),
    ],
)
def test_only_newer_shims_read_their_parameters_from_stdin(version: str, wants: bool) -> None:
    assert bootstrap.wants_params(version) == wants


def test_parameters_hold_the_options_and_a_socket_directory_that_fits() -> None:
    options = runc_options_pb2.Options(root="/run/r", systemd_cgroup=True)
    made = bootstrap_pb2.BootstrapParams.FromString(
        bootstrap.params("p", socket_dir=Path("/run/crisp/s"), events="", options=options)
    )
    assert (made.instance_id, made.namespace, made.socket_dir) == ("p", "crisp", "/run/crisp/s")
    assert made.extensions[0].value.type_url.strip("/") == "containerd.runc.v1.Options"
    assert runc_options_pb2.Options.FromString(made.extensions[0].value.value) == options
    long = bootstrap.params("p", socket_dir=Path("/" + "d" * 60), events="", options=None)
    assert not bootstrap_pb2.BootstrapParams.FromString(long).HasField("socket_dir")


def test_flags_come_before_the_verb() -> None:
    argv = bootstrap.arguments(Path("/bin/shim"), "p", "delete", bundle=Path("/b"))
    assert argv[0] == "/bin/shim"
    assert argv[-1] == "delete"
    assert dict(zip(argv[1:-1:2], argv[2:-1:2], strict=True)) == {
        "-namespace": "crisp",
        "-address": "",
        "-publish-binary": "/bin/true",
        "-id": "p",
        "-bundle": "/b",
    }


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("containerd-shim-runc-v2:\n  Version:  v2.4.2\n  Revision: 1\n", "2.4.2"),
        ("containerd-shim-runc-v2:\n  Version:  1.6.20~ds1\n", "1.6.20~ds1"),
        (
            "Kata Containers containerd shim (Golang): id: io.containerd.kata.v2, version: 3.2.0, commit: x",
            "3.2.0",
        ),
        ("what?", ""),
    ],
)
def test_the_version_is_found_in_what_is_printed(text: str, version: str) -> None:
    assert bootstrap.parse_version(text) == version


def test_what_delete_printed_is_an_exit_or_nothing() -> None:
    ended = task_pb2.DeleteResponse(pid=4, exit_status=137)
    assert bootstrap.parse_deleted(ended.SerializeToString()) == ended
    assert bootstrap.parse_deleted(b"") is None
    assert bootstrap.parse_deleted(b"\xff\xff\xff") is None


def test_programs_and_families_are_found_by_name() -> None:
    assert program_of("io.containerd.runc.v2") == "containerd-shim-runc-v2"
    assert program_of("io.containerd.kata-fc.v2") == "containerd-shim-kata-fc-v2"
    names = ("runc-v2", "runsc-v1", "kata-v2", "kata-fc-v2", "wasmtime-v1")
    found = [family_of(f"containerd-shim-{name}").name for name in names]
    assert found == ["runc", "runsc", "kata", "kata", "runwasi"]
    assert family_of("my-own-shim").name == "other"
