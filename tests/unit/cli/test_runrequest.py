"""From the words of `crisp run` to the requests that are sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from cli.runrequest import Request, Wanted, build
from oci.errors import BadInput


def built(directory: Path = Path("/"), /, **wanted: Any) -> Request:
    return build(
        Wanted(**{"image": "busybox", **wanted}),
        logs=Path("/state/logs"),
        suffix="abc123",
        environment={"HERE": "from here"},
        directory=directory,
    )


def test_the_simplest_request_is_a_confined_container_in_a_pod_of_its_own() -> None:
    request = built(image="registry.example:5000/some/Tool_box:1.2@sha256:00", command=("a", "b"))
    uid = request.pod.metadata.uid
    namespaces = {"pid": "CONTAINER"}
    assert json_format.MessageToDict(request.pod, preserving_proto_field_name=True) == {
        "metadata": {"name": "tool-box-abc123", "namespace": "run", "uid": uid},
        "hostname": "tool-box-abc123",
        "log_directory": f"/state/logs/run_tool-box-abc123_{uid}",
        "annotations": {"crisp.run/invocation": "abc123"},
        "linux": {"security_context": {"namespace_options": namespaces}},
    }
    container = json_format.MessageToDict(request.container, preserving_proto_field_name=True)
    security = container["linux"].pop("security_context")
    assert container == {
        "metadata": {"name": "tool-box"},
        "image": {
            "image": "registry.example:5000/some/Tool_box:1.2@sha256:00",
            "user_specified_image": "registry.example:5000/some/Tool_box:1.2@sha256:00",
        },
        "args": ["a", "b"],
        "log_path": "tool-box/0.log",
        "linux": {"resources": {}},
    }
    assert sorted(security) == ["masked_paths", "namespace_options", "readonly_paths", "seccomp"]
    assert "/proc/kcore" in security["masked_paths"]
    assert "/proc/sys" in security["readonly_paths"]
    assert request.path == "run/tool-box-abc123"


def test_a_name_always_has_the_same_uid_so_that_the_daemon_refuses_a_second_pod_of_it() -> None:
    first, second, other = built(name="web"), built(name="web"), built(name="web2")
    assert first.pod.metadata == second.pod.metadata
    assert first.pod.metadata.uid != other.pod.metadata.uid


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("docker.io/library/busybox:latest", "busybox"),
        ("a/b/UPPER__case..x:y", "upper-case-x"),
        ("sha256:" + "0" * 64, "sha256"),
        ("x" * 100, "x" * 40),
        ("--", "container"),
    ],
)
def test_a_container_is_called_after_its_image(image: str, name: str) -> None:
    assert built(image=image).container.metadata.name == name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080:80", {"host_port": 8080, "container_port": 80}),
        ("53:5353/UDP", {"host_port": 53, "container_port": 5353, "protocol": "UDP"}),
        (
            "127.0.0.1:1:2/sctp",
            {"host_ip": "127.0.0.1", "host_port": 1, "container_port": 2, "protocol": "SCTP"},
        ),
        ("[::1]:1:65535", {"host_ip": "::1", "host_port": 1, "container_port": 65535}),
    ],
)
def test_ports_are_read(text: str, expected: dict[str, Any]) -> None:
    mapping = built(ports=(text,)).pod.port_mappings[0]
    assert json_format.MessageToDict(mapping, preserving_proto_field_name=True) == expected


@pytest.mark.parametrize(
    "text", ["", "80", "a:b", "0:80", "80:65536", "1:2/http", "1:2:3:4", "99999999999999:1"]
)
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--publish: "):
        built(ports=(text,))


def test_ports_make_no_sense_on_the_network_of_the_node() -> None:
    with pytest.raises(BadInput, match="--publish: with --host-network"):
        built(ports=("80:80",), host_network=True)
    pod = built(host_network=True).pod
    assert pod.hostname == ""
    assert json_format.MessageToDict(pod.linux)["securityContext"]["namespaceOptions"] == {
        "network": "NODE",
        "pid": "CONTAINER",
    }


def test_volumes_are_made_absolute_and_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    mounts = built(tmp_path, volumes=("data:/a:ro", f"{tmp_path}:/b", "data/../data:/c:rw")).container.mounts
    assert [(each.host_path, each.container_path, each.readonly) for each in mounts] == [
        (f"{tmp_path}/data", "/a", True),
        (str(tmp_path), "/b", False),
        (f"{tmp_path}/data", "/c", False),
    ]
    for text in ("", "data", "data:", ":/x", "data:x", "data:/x:z", "nothing:/x"):
        with pytest.raises(BadInput, match="--volume: "):
            built(tmp_path, volumes=(text,))


def test_variables_are_given_or_taken_from_here() -> None:
    envs = built(environment=("A=1", "B=", "C==x=y", "HERE", "D=\udcff")).container.envs
    assert [(each.key, each.value) for each in envs] == [
        ("A", b"1"),
        ("B", b""),
        ("C", b"=x=y"),
        ("HERE", b"from here"),
        ("D", b"\xff"),
    ]
    for text in ("", "=x", "NOT_HERE"):
        with pytest.raises(BadInput, match="--env: "):
            built(environment=(text,))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("64MiB", 2**26), ("64m", 2**26), ("64MB", 64 * 10**6), ("1G", 2**30), ("2k", 2048), ("512B", 512)],
)
def test_sizes_are_read_as_docker_and_as_our_files_write_them(text: str, expected: int) -> None:
    assert built(memory=text).container.linux.resources.memory_limit_in_bytes == expected


@pytest.mark.parametrize("text", ["64", "m", "-1m", "64 apples", "1e9"])
def test_a_size_needs_a_unit(text: str) -> None:
    with pytest.raises(BadInput, match="--memory: "):
        built(memory=text)


def test_processors_become_a_quota_and_a_share() -> None:
    resources = built(cpus=0.5).container.linux.resources
    assert (resources.cpu_period, resources.cpu_quota, resources.cpu_shares) == (100_000, 50_000, 512)
    for number in (-1.0, 0.001, float("nan"), float("inf")):
        with pytest.raises(BadInput, match="--cpus: "):
            built(cpus=number)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1000", {"run_as_user": {"value": "1000"}}),
        ("0:0", {"run_as_user": {}, "run_as_group": {}}),
        ("www-data", {"run_as_username": "www-data"}),
        ("www-data:33", {"run_as_username": "www-data", "run_as_group": {"value": "33"}}),
    ],
)
def test_users_are_numbers_or_names(text: str, expected: dict[str, Any]) -> None:
    security = json_format.MessageToDict(
        built(user=text).container.linux.security_context, preserving_proto_field_name=True
    )
    assert {key: value for key, value in security.items() if key.startswith("run_as")} == expected


@pytest.mark.parametrize("text", ["1:staff", "99999999999", "1:99999999999"])
def test_groups_are_numbers_and_ids_are_not_endless(text: str) -> None:
    with pytest.raises(BadInput, match="--user: "):
        built(user=text)


def test_command_and_entrypoint_take_the_place_of_the_image_s() -> None:
    container = built(entrypoint="/bin/sh", command=("-c", "true"), workdir="/tmp").container
    assert (list(container.command), list(container.args), container.working_dir) == (
        ["/bin/sh"],
        ["-c", "true"],
        "/tmp",
    )
