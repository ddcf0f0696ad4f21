"""AppArmor profiles on a kernel that has AppArmor; refusals on one that has not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from api.proto import cri_pb2
from tests.component.cri.client import Client

_ENABLED = Path("/sys/module/apparmor/parameters/enabled")
ON = _ENABLED.exists() and _ENABLED.read_text().startswith("Y")
with_apparmor = pytest.mark.skipif(not ON, reason="this kernel runs without AppArmor")
without_apparmor = pytest.mark.skipif(ON, reason="this kernel runs with AppArmor")

DEFAULT = cri_pb2.SecurityProfile(profile_type=cri_pb2.SecurityProfile.RuntimeDefault)
UNCONFINED = cri_pb2.SecurityProfile(profile_type=cri_pb2.SecurityProfile.Unconfined)


def localhost(name: str) -> Any:
    return cri_pb2.SecurityProfile(profile_type=cri_pb2.SecurityProfile.Localhost, localhost_ref=name)


def confinement(client: Client, container: str) -> str:
    return Path(f"/proc/{client.pid(container)}/attr/current").read_text().rstrip("\n\0")


def refusal(client: Client, security: dict[str, Any]) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        client.create(client.run_pod(), security=security)
    error: Any = caught.value
    return error.code().name, error.details()


@with_apparmor
@pytest.mark.parametrize(
    ("security", "name"),
    [
        ({}, "crisp-default (enforce)"),
        ({"apparmor": DEFAULT}, "crisp-default (enforce)"),
        ({"apparmor_profile": "runtime/default"}, "crisp-default (enforce)"),
        ({"apparmor": localhost("crisp-default")}, "crisp-default (enforce)"),
        ({"apparmor_profile": "localhost/crisp-default"}, "crisp-default (enforce)"),
    ],
)
def test_the_kernel_shows_the_profile(client: Client, security: dict[str, Any], name: str) -> None:
    container = client.run_up(client.run_pod(), security=security)
    assert confinement(client, container) == name


@with_apparmor
@pytest.mark.parametrize(
    "security",
    [{"apparmor": UNCONFINED}, {"apparmor": UNCONFINED, "apparmor_profile": "runtime/default"}],
)
def test_unconfined_is_what_the_runtime_is(client: Client, security: dict[str, Any]) -> None:
    """Debian 13 gives /usr/sbin/runc a profile that confines nothing, which what it starts keeps."""
    container = client.run_up(client.run_pod(), security=security)
    assert confinement(client, container) in ("unconfined", "runc (unconfined)")


@with_apparmor
def test_the_default_profile_stops_what_capabilities_would_allow(client: Client) -> None:
    capabilities = cri_pb2.Capability(add_capabilities=["SYS_ADMIN"])
    container = client.run(client.run_pod(), security={"capabilities": capabilities})
    for command in ("mount -t tmpfs none /mnt", "echo x > /proc/sys/kernel/domainname"):
        request = cri_pb2.ExecSyncRequest(container_id=container, cmd=["sh", "-c", command], timeout=240)
        assert client.call("ExecSync", request).exit_code != 0, command
    client.exec(container, "sh", "-c", "echo 1 > /tmp/own && kill -0 1")


@with_apparmor
def test_a_profile_that_is_not_loaded_is_refused(client: Client) -> None:
    code, words = refusal(client, {"apparmor": localhost("never-loaded")})
    assert (code, "'never-loaded' is not loaded" in words) == ("INVALID_ARGUMENT", True)


@without_apparmor
@pytest.mark.parametrize(
    "security",
    [{"apparmor": DEFAULT}, {"apparmor": localhost("a")}, {"apparmor_profile": "localhost/a"}],
    ids=["default", "by name", "by the older string"],
)
def test_without_apparmor_a_profile_is_refused_with_the_reason(
    client: Client, security: dict[str, Any]
) -> None:
    code, words = refusal(client, security)
    field = "config.linux.security_context.apparmor"
    assert (code, field in words, "the kernel has no AppArmor" in words) == ("UNIMPLEMENTED", True, True)


@without_apparmor
@pytest.mark.parametrize("security", [{"apparmor": UNCONFINED}, {"apparmor_profile": "unconfined"}, {}])
def test_without_apparmor_unconfined_is_what_there_is(client: Client, security: dict[str, Any]) -> None:
    assert client.create(client.run_pod(), security=security)
