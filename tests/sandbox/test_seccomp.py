"""The system-call filter, run by an interpreter of classic BPF: both machines, without loading it into a kernel."""

from __future__ import annotations

import errno
import platform
import struct

import pytest

from keyeloop.runtime.errors import SandboxUnavailable
from keyeloop.sandbox.seccomp import ARCHITECTURES, FORBIDDEN, NAMESPACE_FLAGS, seccomp_program
from keyeloop.sandbox.syscalls import MACHINES, number

ALLOW, KILL = 0x7FFF0000, 0x80000000
AF_UNIX, AF_INET, AF_VSOCK = 1, 2, 40
SIGCHLD = 17


def verdict(program: bytes, architecture: int, call: int, *arguments: int) -> int:
    """What the filter answers for one call: ``linux/filter.h``'s machine, as far as the filter uses it."""
    data = struct.pack("<IIQ6Q", call, architecture, 0, *(*arguments, *[0] * (6 - len(arguments))))
    instructions = list(struct.iter_unpack("<HBBI", program))
    accumulator, at = 0, 0
    while True:
        operation, if_true, if_false, operand = instructions[at]
        at += 1
        if operation == 0x06:
            return int(operand)
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, operand)
            continue
        holds = {
            0x15: accumulator == operand, 0x25: accumulator > operand,
            0x35: accumulator >= operand, 0x45: accumulator & operand != 0,
        }[operation]  # fmt: skip
        at += if_true if holds else if_false


def failed(error: int) -> int:
    return 0x00050000 | error


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def ask(machine: str, name: str, *arguments: int) -> int:
    call = number(name, machine)
    assert call is not None
    return verdict(seccomp_program(machine), ARCHITECTURES[machine], call, *arguments)


def test_every_forbidden_call_fails(machine: str) -> None:
    for name in FORBIDDEN:
        if number(name, machine) is not None:
            assert ask(machine, name) == failed(errno.EPERM), name
    named = "mount unshare setns bpf keyctl userfaultfd perf_event_open ptrace chroot process_vm_readv mknodat"
    assert set(named.split()) <= FORBIDDEN


def test_calls_that_libraries_fall_back_from_are_unknown(machine: str) -> None:
    for name in ("clone3", "io_uring_setup", "memfd_secret"):
        assert ask(machine, name) == failed(errno.ENOSYS)
    program = seccomp_program(machine)
    assert verdict(program, ARCHITECTURES[machine], 463) == failed(errno.ENOSYS)
    assert verdict(program, ARCHITECTURES[machine], 462) == ALLOW


def test_arguments_decide(machine: str) -> None:
    for name in ("socket", "socketpair"):
        assert ask(machine, name, AF_UNIX) == ALLOW
        assert ask(machine, name, AF_INET) == ask(machine, name, AF_VSOCK) == failed(errno.EAFNOSUPPORT)
        assert ask(machine, name, (7 << 32) | AF_INET) == failed(errno.EAFNOSUPPORT)
    assert ask(machine, "clone", SIGCHLD) == ALLOW
    assert ask(machine, "clone", 0x3D0F00) == ALLOW, "a thread"
    for bit in range(32):
        expected = failed(errno.EPERM) if NAMESPACE_FLAGS & 1 << bit else ALLOW
        assert ask(machine, "clone", 1 << bit | SIGCHLD) == expected
    assert ask(machine, "ioctl", 0, 0x5412) == ask(machine, "ioctl", 0, 0x541C) == failed(errno.EPERM)
    assert ask(machine, "ioctl", 0, (1 << 32) | 0x5412) == failed(errno.EPERM)
    assert ask(machine, "ioctl", 0, 0x5401) == ALLOW


def test_foreign_calling_conventions_do_not_slip_through(machine: str) -> None:
    program = seccomp_program(machine)
    for architecture in (0x40000003, *(other for other in ARCHITECTURES.values() if other != ARCHITECTURES[machine])):
        assert verdict(program, architecture, 0) == KILL
    assert verdict(program, ARCHITECTURES[machine], 0x40000000 | 41, AF_INET) == failed(errno.ENOSYS)


def test_ordinary_calls_pass() -> None:
    for machine, calls in (("x86_64", (0, 1, 9, 59, 231, 257, 318, 319)), ("aarch64", (63, 64, 222, 221, 94, 56, 278))):
        assert {verdict(seccomp_program(machine), ARCHITECTURES[machine], call) for call in calls} == {ALLOW}


def test_other_machines_are_told() -> None:
    with pytest.raises(SandboxUnavailable, match=r"sparc64.*x86_64, aarch64"):
        seccomp_program("sparc64")
    if platform.machine() in MACHINES:
        assert seccomp_program() == seccomp_program(platform.machine())
