"""The filter of system calls, run by an interpreter of classic BPF, for both architectures."""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import pytest

from shim.images.confinement import CALLS
from shim.kernel.seccomp import ALLOW, KILL, MACHINES, compose

HEADERS = {
    # the compiler's own, and the table that arm64 shares with all younger architectures
    "x86_64": ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", r"#define __NR_(\w+) (\d+)$"),
    "aarch64": ("/usr/include/asm-generic/unistd.h", r"#define __NR(?:3264)?_(\w+) (\d+)$"),
}
# asm-generic has them under the names of 32 bits, and defines the others from those
GENERIC = {"fcntl": 25, "ftruncate": 46, "lseek": 62, "newfstatat": 79, "fstat": 80, "mmap": 222}


def answer(program: bytes, *, number: int, architecture: int) -> int:
    """What the filter says to one call."""
    data = struct.pack("=iIQ6Q", number, architecture, 0, *(0,) * 6)
    at = accumulator = 0
    while True:
        code, true, false, operand = struct.unpack_from("=HBBI", program, 8 * at)
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, operand)
        elif code in (0x15, 0x35):
            at += true if (accumulator == operand if code == 0x15 else accumulator >= operand) else false
        else:
            assert code == 0x06
            return operand


@pytest.mark.parametrize("machine", MACHINES)
def test_the_calls_named_are_allowed_and_every_other_ends_the_process(machine: str) -> None:
    known = MACHINES[machine]
    program = compose(CALLS, machine)
    allowed = {known.calls[name] for name in CALLS}
    for number in range(600):
        expected = ALLOW if number in allowed else KILL
        assert answer(program, number=number, architecture=known.audit) == expected, number


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_in_the_convention_of_another_architecture_end_the_process(machine: str) -> None:
    known = MACHINES[machine]
    program = compose(CALLS, machine)
    others = {other.audit for other in MACHINES.values()} | {0x40000003, 0x40000028}  # i386, arm
    for architecture in others - {known.audit}:
        for number in range(600):
            assert answer(program, number=number, architecture=architecture) == KILL
    for number in known.calls.values():  # x32 has the architecture of x86_64, and a bit in the number
        assert answer(program, number=0x40000000 | number, architecture=known.audit) == KILL


def test_no_call_at_all_is_a_filter_too() -> None:
    program = compose((), "x86_64")
    assert {answer(program, number=n, architecture=0xC000003E) for n in range(600)} == {KILL}


@pytest.mark.parametrize("machine", MACHINES)
def test_the_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    path, pattern = HEADERS[machine]
    if not Path(path).exists():
        pytest.skip(f"{path} is not here")
    found = {name: int(number) for name, number in re.findall(pattern, Path(path).read_text(), re.MULTILINE)}
    if machine == "aarch64":
        found |= {name: found.get(name, number) for name, number in GENERIC.items()}
    assert dict(MACHINES[machine].calls) == {name: found[name] for name in MACHINES[machine].calls}


def test_both_machines_know_the_same_calls() -> None:
    assert MACHINES["x86_64"].calls.keys() == MACHINES["aarch64"].calls.keys() == set(CALLS)


def test_a_machine_that_is_not_known_is_an_error_that_names_it() -> None:
    with pytest.raises(OSError, match="no system call filter for riscv64") as found:
        compose(CALLS, "riscv64")
    assert found.value.errno == errno.ENOSYS
