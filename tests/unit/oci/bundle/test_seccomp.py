"""The RuntimeDefault table, judged by what it does to a call."""

from __future__ import annotations

from typing import Any

import pytest

from oci.bundle.seccomp import runtime_default
from oci.bundle.seccomp.table import ALWAYS, ARCHITECTURES, BY_CAPABILITY, BY_MACHINE

KERNEL = (6, 12, 0)


def verdict(profile: dict[str, Any], name: str, *arguments: int) -> str | int:
    """What a filter does: "allow", or the errno. As libseccomp: a rule counts if all its conditions hold."""
    for rule in profile["syscalls"]:
        if name in rule["names"] and all(_holds(condition, arguments) for condition in rule.get("args", [])):
            return "allow" if rule["action"] == "SCMP_ACT_ALLOW" else int(rule["errnoRet"])
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    return int(profile["defaultErrnoRet"])


def _holds(condition: dict[str, Any], arguments: tuple[int, ...]) -> bool:
    given, value = arguments[condition["index"]], condition["value"]
    match condition["op"]:
        case "SCMP_CMP_EQ":
            return given == value
        case "SCMP_CMP_NE":
            return given != value
        case "SCMP_CMP_MASKED_EQ":
            return given & value == condition["valueTwo"]
    raise AssertionError(condition)


def default(
    *capabilities: str, machine: str = "x86_64", kernel: tuple[int, int, int] = KERNEL
) -> dict[str, Any]:
    return runtime_default(machine, frozenset(capabilities), kernel=kernel)


@pytest.mark.parametrize(
    "name", ["read", "openat", "execve", "futex", "clone_not", "epoll_wait", "ptrace", "statx"]
)
def test_everyday_calls_pass(name: str) -> None:
    assert verdict(default(), name) == (1 if name == "clone_not" else "allow")


@pytest.mark.parametrize(
    "name",
    [
        "mount", "umount2", "setns", "unshare", "bpf", "reboot", "init_module", "kexec_load", "keyctl",
        "add_key", "request_key", "swapon", "pivot_root", "chroot", "open_by_handle_at",
        "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "clock_settime",
        "settimeofday", "acct", "iopl", "nfsservctl", "move_mount", "fsopen", "mbind", "syslog",
        "vhangup", "quotactl", "lookup_dcookie", "_sysctl", "ustat",
    ],
)  # fmt: skip
def test_calls_that_reach_the_machine_are_refused_without_capabilities(name: str) -> None:
    assert verdict(default(), name) == 1


@pytest.mark.parametrize(
    ("capability", "name"), [(c, n) for c, names in BY_CAPABILITY.items() for n in names]
)
def test_a_capability_opens_its_calls(capability: str, name: str) -> None:
    assert verdict(default(capability), name, 0x10000000) == "allow"


def test_a_process_can_be_cloned_but_not_into_new_namespaces() -> None:
    profile = default()
    assert verdict(profile, "clone", 0x00000011) == "allow"
    assert verdict(profile, "clone", 0x003D0F00) == "allow"  # a thread
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert verdict(profile, "clone", flag | 0x11) == 1
        assert verdict(default("CAP_SYS_ADMIN"), "clone", flag) == "allow"


def test_the_second_argument_of_clone_is_judged_where_it_has_the_flags() -> None:
    profile = default(machine="s390x")
    assert verdict(profile, "clone", 0, 0x10000000) == 1
    assert verdict(profile, "clone", 0x10000000, 0x11) == "allow"


def test_clone3_says_that_it_is_missing_so_that_libraries_fall_back() -> None:
    assert verdict(default(), "clone3") == 38
    assert verdict(default("CAP_SYS_ADMIN"), "clone3") == "allow"


@pytest.mark.parametrize(
    ("persona", "expected"), [(0, "allow"), (8, "allow"), (0xFFFFFFFF, "allow"), (0x0040000, 1)]
)
def test_only_harmless_personalities_pass(persona: int, expected: str | int) -> None:
    assert verdict(default(), "personality", persona) == expected


@pytest.mark.parametrize(("family", "expected"), [(1, "allow"), (2, "allow"), (16, "allow"), (40, 1)])
def test_sockets_of_all_families_but_vsock_pass(family: int, expected: str | int) -> None:
    assert verdict(default(), "socket", family) == expected


def test_tracing_is_refused_on_kernels_where_it_evades_the_filter() -> None:
    assert verdict(default(kernel=(4, 7, 9)), "ptrace") == 1
    assert verdict(default(kernel=(4, 8, 0)), "ptrace") == "allow"
    assert verdict(default("CAP_SYS_PTRACE", kernel=(4, 7, 9)), "ptrace") == "allow"


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_each_machine_has_its_conventions_and_calls(machine: str) -> None:
    profile = default(machine=machine)
    assert profile["architectures"] == list(ARCHITECTURES[machine])
    assert all(verdict(profile, name) == "allow" for name in BY_MACHINE.get(machine, ()))


def test_a_machine_that_is_not_in_the_table_filters_its_native_convention() -> None:
    profile = default(machine="sparc64")
    assert "architectures" not in profile
    assert verdict(profile, "read") == "allow"


def test_no_call_is_listed_both_as_always_allowed_and_for_a_capability() -> None:
    gated = {name for names in BY_CAPABILITY.values() for name in names}
    assert gated & set(ALWAYS) == set()
    assert list(ALWAYS) == sorted(set(ALWAYS))
