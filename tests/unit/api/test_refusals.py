"""Bad requests are refused with the path of the field, before anything is touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from api.proto import cri_pb2
from api.translate import images
from api.translate.container_request import arguments, container_spec
from api.translate.pod_request import pod_spec
from oci.errors import BadInput
from tests.unit.api import requests

Change = Callable[[Any], object]
KIB = 1024


def pod_error(change: Change) -> str:
    message = requests.pod_config()
    change(message)
    with pytest.raises(BadInput) as caught:
        pod_spec(message, "config")
    return str(caught.value)


def container_error(change: Change) -> str:
    message = requests.container_config()
    change(message)
    with pytest.raises(BadInput) as caught:
        container_spec(message, "config")
    return str(caught.value)


def setting(path: str, value: object) -> Change:
    """Sets `linux.security_context.privileged` and the like; `mounts.0.readonly` goes into an element."""

    def change(message: Any) -> None:
        *way, last = path.split(".")
        for step in way:
            message = message[int(step)] if step.isdecimal() else getattr(message, step)
        if isinstance(value, list):
            getattr(message, last).extend(value)
        elif isinstance(value, dict):
            getattr(message, last).update(value)
        else:
            setattr(message, last, value)

    return change


def clearing(*names: str) -> Change:
    def change(message: Any) -> None:
        for name in names:
            *way, last = name.split(".")
            target = message
            for step in way:
                target = getattr(target, step)
            target.ClearField(last)

    return change


def both(*changes: Change) -> Change:
    def change(message: Any) -> None:
        for one in changes:
            one(message)

    return change


SECURITY = "linux.security_context"
NAMESPACES = f"{SECURITY}.namespace_options"
LIMITS = "linux.resources"

POD = [
    (clearing("metadata"), "config.metadata: missing"),
    (setting("metadata.name", ""), "config.metadata.name: empty"),
    (setting("metadata.namespace", ""), "config.metadata.namespace: empty"),
    (setting("metadata.uid", ""), "config.metadata.uid: empty"),
    (setting("metadata.name", "a;b"), "config.metadata.name: 'a;b' contains ';'"),
    (setting("metadata.uid", "a=b"), "config.metadata.uid: 'a=b' contains '='"),
    (setting("metadata.name", "../x"), "config.metadata.name: '../x' contains '/'"),
    (setting("metadata.namespace", ".."), "config.metadata.namespace: '..' is not a name"),
    (setting("metadata.name", "a\nb"), "config.metadata.name: contains the control character '\\n'"),
    (setting("metadata.name", "a\0b"), "config.metadata.name: contains a NUL byte"),
    (setting("metadata.name", "a b"), "config.metadata.name: contains white space: 'a b'"),
    (setting("metadata.name", "a" * 254), "config.metadata.name: 254 bytes, more than the 253 allowed"),
    (setting("hostname", "h" * 65), "config.hostname: 65 bytes, more than the 64 allowed"),
    (setting("hostname", "a\n127.0.0.1 b"), "config.hostname: contains the control character '\\n'"),
    (setting("hostname", "a/b"), "config.hostname: 'a/b' contains '/'"),
    (setting("log_directory", "var/log"), "config.log_directory: 'var/log' is not an absolute path"),
    (setting("log_directory", "/var/../etc"), "config.log_directory: '/var/../etc' contains '..'"),
    (
        setting("dns_config.servers", ["1.1.1.1\nnameserver 6.6.6.6"]),
        "config.dns_config.servers[1]: contains the control character '\\n'",
    ),
    (setting("port_mappings.0.protocol", 9), "config.port_mappings[0].protocol: 9 is not one of [0, 1, 2]"),
    (setting("port_mappings.0.host_port", 65536), "config.port_mappings[0].host_port: 65536 is not a port"),
    (
        setting("port_mappings.0.container_port", 0),
        "config.port_mappings[0].container_port: 0 is not a port",
    ),
    (setting("port_mappings.0.host_ip", "x"), "config.port_mappings[0].host_ip: 'x' is not an address"),
    (setting("labels", {"": "x"}), "config.labels: a key is empty"),
    (
        setting("annotations", {"bomb": "x" * 300 * KIB}),
        f"config.annotations['bomb']: {300 * KIB} bytes, more than the {272 * KIB} allowed",
    ),
    (
        setting("annotations", {f"k{n:02}": "x" * 100 * KIB for n in range(3)}),
        f"config.annotations: {3 * (100 * KIB + 3) + 7} bytes in all, more than the {272 * KIB} allowed",
    ),
    (setting("linux.cgroup_parent", "/a/../.."), "config.linux.cgroup_parent: '/a/../..' contains '..'"),
    (
        setting("linux.sysctls", {"kernel/../../x": "1"}),
        "config.linux.sysctls: 'kernel/../../x' is not the name of a sysctl",
    ),
    (
        setting(f"{NAMESPACES}.network", cri_pb2.CONTAINER),
        f"config.{NAMESPACES}.network: 1 is not one of [0, 2]",
    ),
    (setting(f"{NAMESPACES}.pid", cri_pb2.TARGET), f"config.{NAMESPACES}.pid: 3 is not one of [0, 1, 2]"),
    (setting(f"{NAMESPACES}.ipc", 7), f"config.{NAMESPACES}.ipc: 7 is not one of [0, 2]"),
    (
        clearing(f"{SECURITY}.run_as_user"),
        f"config.{SECURITY}.run_as_group: set without a user",
    ),
    (
        setting(f"{SECURITY}.run_as_user.value", -1),
        f"config.{SECURITY}.run_as_user: -1 is not a user or group id (0 to 4294967294)",
    ),
    (
        setting(f"{SECURITY}.supplemental_groups", [2**32]),
        f"config.{SECURITY}.supplemental_groups[1]: 4294967296 is not a user or group id (0 to 4294967294)",
    ),
    (
        setting(f"{NAMESPACES}.userns_options.mode", cri_pb2.NODE),
        f"config.{NAMESPACES}.userns_options: mode NODE has mappings, which only mode POD can have",
    ),
    (
        setting(f"{NAMESPACES}.userns_options.mode", cri_pb2.TARGET),
        f"config.{NAMESPACES}.userns_options.mode: 3 is neither POD nor NODE",
    ),
    (
        clearing(f"{NAMESPACES}.userns_options.gids"),
        f"config.{NAMESPACES}.userns_options.gids: 0 mappings, exactly one is supported",
    ),
    (
        setting(f"{NAMESPACES}.userns_options.uids.0.container_id", 1),
        f"config.{NAMESPACES}.userns_options.uids[0].container_id: 1, but id 0 must be mapped",
    ),
    (
        setting(f"{NAMESPACES}.userns_options.uids.0.length", 0),
        f"config.{NAMESPACES}.userns_options.uids[0].length: 0 maps nothing",
    ),
    (
        setting(f"{NAMESPACES}.userns_options.uids.0.length", 2**32 - 1),
        f"config.{NAMESPACES}.userns_options.uids[0].host_id: "
        "100000 and 4294967295 ids reach beyond 4294967294",
    ),
    (
        setting(
            f"{NAMESPACES}.userns_options.uids",
            [cri_pb2.IDMapping(host_id=5, container_id=9, length=1)],
        ),
        f"config.{NAMESPACES}.userns_options.uids[1]: overlaps an earlier mapping",
    ),
    (
        setting(f"{SECURITY}.seccomp.localhost_ref", "p.json"),
        f"config.{SECURITY}.seccomp.localhost_ref: 'p.json' is not an absolute path",
    ),
    (
        setting(f"{SECURITY}.seccomp.profile_type", cri_pb2.SecurityProfile.Unconfined),
        f"config.{SECURITY}.seccomp.localhost_ref: set, but profile_type is not Localhost",
    ),
    (
        setting(f"{SECURITY}.apparmor.localhost_ref", "localhost/"),
        f"config.{SECURITY}.apparmor.localhost_ref: empty, but profile_type is Localhost",
    ),
    (
        setting(f"{SECURITY}.selinux_options.type", "a:b"),
        f"config.{SECURITY}.selinux_options.type: contains ':', which separates the parts of a label",
    ),
]

CONTAINER = [
    (clearing("metadata"), "config.metadata: missing"),
    (setting("metadata.name", ""), "config.metadata.name: empty"),
    (clearing("image"), "config.image.image: empty"),
    (setting("image.image", "x" * 1025), "config.image.image: 1025 bytes, more than the 1024 allowed"),
    (
        setting("args", ["x" * 128 * KIB]),
        f"config.args[2]: {128 * KIB} bytes, more than the {128 * KIB - 1} allowed",
    ),
    (setting("command", ["a\0b"]), "config.command[1]: contains a NUL byte"),
    (
        setting("args", ["x" * 120 * KIB] * 52),
        f"config: command, args and envs are {52 * (120 * KIB + 1) + 29} bytes, more than execve takes",
    ),
    (setting("envs.0.key", ""), "config.envs[0].key: empty"),
    (setting("envs.0.key", "A=B"), "config.envs[0].key: 'A=B' contains '='"),
    (setting("envs.0.value", b"a\0"), "config.envs[0].value: contains a NUL byte"),
    (
        setting("envs.0.value", b"s" * 128 * KIB),
        f"config.envs[0].value: {128 * KIB + 6} bytes with the name, execve takes {128 * KIB - 1}",
    ),
    (setting("working_dir", "srv"), "config.working_dir: 'srv' is not an absolute path"),
    (setting("log_path", "../other.log"), "config.log_path: '../other.log' contains '..'"),
    (setting("log_path", "/etc/passwd"), "config.log_path: '/etc/passwd' is not a relative path"),
    (setting("mounts.0.container_path", ""), "config.mounts[0].container_path: empty"),
    (setting("mounts.0.host_path", "x"), "config.mounts[0].host_path: 'x' is not an absolute path"),
    (setting("mounts.0.host_path", "/a/../b"), "config.mounts[0].host_path: '/a/../b' contains '..'"),
    (setting("mounts.1.propagation", 5), "config.mounts[1].propagation: 5 is not one of [0, 1, 2]"),
    (setting("mounts.0.readonly", False), "config.mounts[0].recursive_read_only: set without readonly"),
    (
        setting("mounts.0.propagation", 1),
        "config.mounts[0].recursive_read_only: needs private propagation",
    ),
    (
        setting("mounts.0.mount_options", ["suid"]),
        "config.mounts[0].mount_options[1]: 'suid' is none of noexec, nodev, nosuid",
    ),
    (setting("mounts.0.image_sub_path", "x"), "config.mounts[0].image_sub_path: set, but no image"),
    (
        setting("mounts.2.host_path", "/x"),
        "ImageVolumeMountFailed: config.mounts[2].host_path: set together with image",
    ),
    (
        setting("mounts.2.readonly", False),
        "ImageVolumeMountFailed: config.mounts[2].readonly: an image can only be mounted read-only",
    ),
    (
        setting("mounts.2.image_sub_path", "a/../../b"),
        "ImageVolumeMountFailed: config.mounts[2].image_sub_path: 'a/../../b' contains '..'",
    ),
    (
        setting("devices.0.permissions", "rx"),
        "config.devices[0].permissions: 'rx' is not made of the letters rwm",
    ),
    (setting("devices.0.host_path", "null"), "config.devices[0].host_path: 'null' is not an absolute path"),
    (setting("CDI_devices.0.name", ""), "config.CDI_devices[0].name: empty"),
    (setting("stop_signal", 99), "config.stop_signal: 99 is not a signal of the interface"),
    (
        setting(f"{LIMITS}.cpu_period", 999),
        f"config.{LIMITS}.cpu_period: 999 us is not within 1000 to 1000000",
    ),
    (
        setting(f"{LIMITS}.cpu_quota", -2),
        f"config.{LIMITS}.cpu_quota: -2 us is neither -1 nor at least 1000",
    ),
    (setting(f"{LIMITS}.cpu_shares", -1), f"config.{LIMITS}.cpu_shares: -1 is negative"),
    (setting(f"{LIMITS}.cpu_shares", 2**40), f"config.{LIMITS}.cpu_shares: {2**40} is more than 262144"),
    (
        setting(f"{LIMITS}.memory_limit_in_bytes", -5),
        f"config.{LIMITS}.memory_limit_in_bytes: -5 is negative",
    ),
    (
        setting(f"{LIMITS}.memory_swap_limit_in_bytes", 1),
        f"config.{LIMITS}.memory_swap_limit_in_bytes: 1 is less than memory_limit_in_bytes ({64 << 20}), "
        "which it includes",
    ),
    (
        setting(f"{LIMITS}.memory_swap_limit_in_bytes", -2),
        f"config.{LIMITS}.memory_swap_limit_in_bytes: -2 is negative and not -1",
    ),
    (
        setting(f"{LIMITS}.oom_score_adj", 1001),
        f"config.{LIMITS}.oom_score_adj: 1001 is not within -1000 to 1000",
    ),
    (
        setting(f"{LIMITS}.cpuset_cpus", "all"),
        f"config.{LIMITS}.cpuset_cpus: 'all' is not a list such as 0-2,7",
    ),
    (
        setting(f"{LIMITS}.hugepage_limits.0.page_size", "../x"),
        f"config.{LIMITS}.hugepage_limits[0].page_size: '../x' is not a size such as 2MB",
    ),
    (
        setting(f"{LIMITS}.unified", {"../cgroup.procs": "1"}),
        f"config.{LIMITS}.unified: '../cgroup.procs' is not the name of a cgroup file",
    ),
    (
        setting(f"{SECURITY}.run_as_user.value", 0),
        f"config.{SECURITY}.run_as_username: set together with run_as_user",
    ),
    (
        clearing(f"{SECURITY}.run_as_username"),
        f"config.{SECURITY}.run_as_group: set without a user",
    ),
    (
        clearing(f"{NAMESPACES}.target_id"),
        f"config.{NAMESPACES}.target_id: empty, but pid is TARGET",
    ),
    (
        setting(f"{SECURITY}.masked_paths", ["proc"]),
        f"config.{SECURITY}.masked_paths[1]: 'proc' is not an absolute path",
    ),
    (
        setting(f"{SECURITY}.supplemental_groups_policy", 5),
        f"config.{SECURITY}.supplemental_groups_policy: 5 is not one of [0, 1]",
    ),
    (
        both(clearing(f"{SECURITY}.seccomp"), setting(f"{SECURITY}.seccomp_profile_path", "mine")),
        f"config.{SECURITY}.seccomp_profile_path: 'mine' is none of "
        "runtime/default, unconfined, localhost/PROFILE",
    ),
]


@pytest.mark.parametrize(("change", "error"), POD, ids=[error[:60] for _, error in POD])
def test_a_bad_pod_request_is_refused_at_its_field(change: Change, error: str) -> None:
    assert pod_error(change) == error


@pytest.mark.parametrize(("change", "error"), CONTAINER, ids=[error[:60] for _, error in CONTAINER])
def test_a_bad_container_request_is_refused_at_its_field(change: Change, error: str) -> None:
    assert container_error(change) == error


def test_an_environment_value_is_never_part_of_an_error() -> None:
    secret = b"hunter2" * 20000
    assert "hunter2" not in container_error(setting("envs.0.value", secret))
    assert "hunter2" not in container_error(setting("envs.0.value", secret + b"\0"))


def test_a_credential_is_never_part_of_an_error_or_a_repr() -> None:
    with pytest.raises(BadInput, match=r"^auth.password: contains a NUL or the end of a line$"):
        images.credentials(cri_pb2.AuthConfig(username="me", password="hunter2\n"), "auth")
    who = images.credentials(cri_pb2.AuthConfig(username="me", password="hunter2", auth="aHVudGVyMg=="), "")
    assert "hunter2" not in repr(who)
    assert "aHVudGVyMg" not in repr(who)


def test_kubelets_own_annotations_fit_beside_the_largest_that_a_pod_may_have() -> None:
    message = requests.pod_config()
    message.annotations.clear()
    message.annotations["big"] = "x" * (256 * KIB - 3)
    message.annotations["kubernetes.io/config.source"] = "api"
    assert len(pod_spec(message, "config").annotations) == 2


def test_the_longest_argument_that_execve_takes_is_taken() -> None:
    longest = "x" * (128 * KIB - 1)
    assert arguments([longest], "cmd") == (longest,)
