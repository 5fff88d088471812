"""The system-call filter of every sandbox: what it refuses, and its assembly to classic BPF in plain Python.

The format is ``struct sock_filter`` of ``linux/filter.h`` over ``struct seccomp_data`` of ``linux/seccomp.h``. A
refused call fails with an error number, so that ordinary programs carry on; a foreign calling convention kills.
"""

from __future__ import annotations

import errno
import platform
import struct
from typing import Final

from keyeloop.runtime.errors import SandboxUnavailable
from keyeloop.sandbox.syscalls import MACHINES, NEWEST_KNOWN, NUMBERS, number

ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""``AUDIT_ARCH_*`` of ``linux/audit.h``."""

FILTERED_BY_ARGUMENT: Final = frozenset({"clone", "ioctl", "socket", "socketpair"})
UNKNOWN_TO_CALLERS: Final = frozenset(
    {"clone3", "io_uring_enter", "io_uring_register", "io_uring_setup", "memfd_secret", "mq_open"}
)
"""Answered with ENOSYS: C libraries then fall back (``clone3`` to ``clone``, whose flags the filter can read)."""
FORBIDDEN: Final = frozenset(NUMBERS) - FILTERED_BY_ARGUMENT - UNKNOWN_TO_CALLERS

NAMESPACE_FLAGS: Final = 0x7E020000
"""``CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET``."""
AF_UNIX: Final = 1
TIOCSTI, TIOCLINUX = 0x5412, 0x541C

_LOAD, _EQUAL, _GREATER, _NOT_BELOW, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_X32_BIT = 0x40000000

Instruction = tuple[int, int, int, int]
"""Operation, instructions to skip if true, if false, operand."""


def seccomp_program(machine: str | None = None) -> bytes:
    """Assemble the filter for ``machine`` (default: this one), as an engine hands it to the kernel.

    Raises SandboxUnavailable on a machine without a table of call numbers.
    """
    machine = machine or platform.machine()
    if machine not in ARCHITECTURES:
        raise SandboxUnavailable(
            f"no system-call filter for {machine}: the known machines are {', '.join(MACHINES)}; "
            "use an engine that brings its own kernel, or run on one of these"
        )
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in _instructions(machine))


def _instructions(machine: str) -> list[Instruction]:
    program: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if machine == "x86_64":
        program += [(_NOT_BELOW, 0, 1, _X32_BIT), _fail(errno.ENOSYS)]
    program += [(_GREATER, 0, 1, NEWEST_KNOWN), _fail(errno.ENOSYS)]
    for names, error in ((FORBIDDEN, errno.EPERM), (UNKNOWN_TO_CALLERS, errno.ENOSYS)):
        for call in sorted(found for name in names if (found := number(name, machine)) is not None):
            program += [(_EQUAL, 0, 1, call), _fail(error)]
    for name in ("socket", "socketpair"):
        program += _when(name, machine, [_argument(0), (_EQUAL, 1, 0, AF_UNIX), _fail(errno.EAFNOSUPPORT)])
    program += _when("clone", machine, [_argument(0), (_ANY_BIT, 0, 1, NAMESPACE_FLAGS), _fail(errno.EPERM)])
    program += _when(
        "ioctl",
        machine,
        [_argument(1), (_EQUAL, 1, 0, TIOCSTI), (_EQUAL, 0, 1, TIOCLINUX), _fail(errno.EPERM)],
    )
    return [*program, (_RETURN, 0, 0, _ALLOW)]


def _when(name: str, machine: str, body: list[Instruction]) -> list[Instruction]:
    """``body`` for one call only; it ends in a verdict because the number is no longer loaded."""
    body = [*body, (_RETURN, 0, 0, _ALLOW)]
    call = number(name, machine)
    assert call is not None
    return [(_EQUAL, 0, len(body), call), *body]


def _argument(index: int) -> Instruction:
    """Load the low half of an argument: the kernel takes all filtered ones as 32-bit integers."""
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * index)


def _fail(error: int) -> Instruction:
    return (_RETURN, 0, 0, _ERRNO | error)
