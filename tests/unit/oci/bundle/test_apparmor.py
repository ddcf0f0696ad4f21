"""The default AppArmor profile, judged by what its rules match."""

from __future__ import annotations

import re

import pytest

from oci.bundle.apparmor import all_but, default_profile


def regex(pattern: str) -> re.Pattern[str]:
    """A path pattern of apparmor.d(5) as a regular expression: `**`, character classes, plain text."""
    text = re.escape(pattern).replace(r"\*\*", ".*")
    return re.compile(re.sub(r"\\\[(.+?)\\\]", lambda m: f"[{m[1].replace(chr(92), '')}]", text) + r"\Z")


DENIALS = [
    (regex(path), letters)
    for path, letters in re.findall(r"^  deny (/\S+) (\w+),$", default_profile(), re.MULTILINE)
]


def denied(path: str, access: str) -> bool:
    return any(access in letters and pattern.match(path) for pattern, letters in DENIALS)


@pytest.mark.parametrize(
    "path",
    [
        "/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/vm/panic_on_oom",
        "/proc/acpi/wakeup", "/proc/sys/fs/binfmt_misc/register", "/proc/irq/1/smp_affinity",
        "/proc/mtrr", "/proc/scsi/scsi",
        "/proc/sys/kernel/modprobe", "/proc/sys/kernel/sysrq", "/proc/sys/kernel/yama/ptrace_scope",
        "/sys/kernel/uevent_helper", "/sys/fs/selinux/enforce", "/sys/fs/ext4/sda/trigger_fs_error",
        "/sys/power/state", "/sys/module/a/parameters/b", "/sys/block/sda/queue/scheduler", "/sys/firmware/a",
    ],
)  # fmt: skip
def test_files_of_the_node_cannot_be_written(path: str) -> None:
    assert denied(path, "w")


@pytest.mark.parametrize(
    "path",
    [
        "/proc/1/attr/current", "/proc/4711/oom_score_adj", "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/kernel/shmmax", "/proc/sys/kernel/shm_rmid_forced", "/proc/sys/kernel/msgmnb",
        "/proc/sys/kernel/sem", "/proc/sys/fs/mqueue/msg_max", "/sys/fs/cgroup/memory/a/tasks", "/etc/passwd",
        "/dev/null", "/tmp/proc/sys/kernel/core_pattern",
    ],
)  # fmt: skip
def test_what_is_the_containers_own_can_be_written(path: str) -> None:
    assert not denied(path, "w")


@pytest.mark.parametrize(
    ("path", "secret"),
    [("/proc/kcore", True), ("/sys/firmware/efi/a", True), ("/sys/kernel/security/b", True),
     ("/sys/devices/virtual/powercap/c", True), ("/proc/cpuinfo", False), ("/sys/class/net/eth0/mtu", False)],
)  # fmt: skip
def test_few_files_cannot_be_read(path: str, secret: bool) -> None:
    assert denied(path, "r") is secret


def test_mounts_are_denied_and_the_daemon_may_end_it() -> None:
    lines = default_profile("other-name").splitlines()
    assert lines[0] == 'profile "other-name" flags=(attach_disconnected,mediate_deleted) {'
    assert {"  deny mount,", "  signal (receive) peer=unconfined,", "  capability,"} <= set(lines)
    assert '  ptrace (trace, read, tracedby, readby) peer="other-name",' in lines
    assert lines[-1] == "}"


def test_patterns_leave_exactly_what_is_allowed() -> None:
    patterns = [regex(pattern) for pattern in all_but("/r/", ("ab/", "ac"))]
    refused = [
        p
        for p in ("/r/b", "/r/ax", "/r/abc", "/r/ab/x", "/r/ac", "/r/acx")
        if any(m.match(p) for m in patterns)
    ]
    assert refused == ["/r/b", "/r/ax", "/r/abc"]
