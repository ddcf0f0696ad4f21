"""The RuntimeDefault filter for one machine and one set of capabilities (runtime-spec config-linux.md).

The outcome is that of the profile which Docker and containerd ship, also in the rules on arguments: no new
namespaces without CAP_SYS_ADMIN, no vsock, no odd personality. It differs as `docs/seccomp.md` lists.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from oci.bundle.seccomp.table import ALWAYS, ARCHITECTURES, BY_CAPABILITY, BY_MACHINE

EPERM, ENOSYS = 1, 38

# CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET (linux/sched.h)
_NAMESPACE_FLAGS = 0x7E020000
_CLONE_FLAGS_ARGUMENT = {"s390x": 1}  # clone(2): s390 has flags second
_AF_VSOCK = 40
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)  # PER_LINUX, LINUX32, UNAME26, both, "ask"
_PTRACE_ALLOWED_FROM = (4, 8)  # before it, ptrace could evade the filter


def runtime_default(
    machine: str, capabilities: frozenset[str], *, kernel: tuple[int, int, int]
) -> dict[str, Any]:
    """`linux.seccomp` for a process that starts with `capabilities` on a kernel of this version."""
    rules: list[dict[str, Any]] = [_allow(_names(machine, capabilities, kernel))]
    rules += [_allow(["personality"], _condition(0, persona, "SCMP_CMP_EQ")) for persona in _PERSONALITIES]
    rules.append(_allow(["socket"], _condition(0, _AF_VSOCK, "SCMP_CMP_NE")))
    if "CAP_SYS_ADMIN" not in capabilities:
        argument = _CLONE_FLAGS_ARGUMENT.get(machine, 0)
        mask = {"index": argument, "value": _NAMESPACE_FLAGS, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
        rules.append(_allow(["clone"], mask))
        # clone3 hides its flags behind a pointer; ENOSYS makes the C library fall back to clone.
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS})
    profile: dict[str, Any] = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "syscalls": rules,
    }
    if machine in ARCHITECTURES:
        profile["architectures"] = list(ARCHITECTURES[machine])
    return profile


def _names(machine: str, capabilities: frozenset[str], kernel: tuple[int, int, int]) -> list[str]:
    names = {*ALWAYS, *BY_MACHINE.get(machine, ())}
    for capability in capabilities:
        names.update(BY_CAPABILITY.get(capability, ()))
    if kernel[:2] >= _PTRACE_ALLOWED_FROM:
        names.update(("ptrace", "process_vm_readv", "process_vm_writev"))
    return sorted(names)


def _condition(index: int, value: int, operator: str) -> dict[str, Any]:
    return {"index": index, "value": value, "op": operator}


def _allow(names: Iterable[str], *conditions: dict[str, Any]) -> dict[str, Any]:
    rule: dict[str, Any] = {"names": list(names), "action": "SCMP_ACT_ALLOW"}
    if conditions:
        rule["args"] = list(conditions)
    return rule
