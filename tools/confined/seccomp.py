"""A system-call filter for the child: no opening of files by name, no sockets, no programs, no other processes.

The numbers are those of the Linux headers asm/unistd_64.h (x86-64) and asm-generic/unistd.h (aarch64), the program
form that of linux/filter.h and linux/seccomp.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

_X86_64 = (0xC000003E, 56, 435, (
    2, 85, 257, 304, 437,  # open, creat, openat, open_by_handle_at, openat2
    41, 42, 43, 49, 50, 53, 288,  # socket, connect, accept, bind, listen, socketpair, accept4
    57, 58, 59, 322,  # fork, vfork, execve, execveat
    62, 101, 310, 311, 434, 438,  # kill, ptrace, process_vm_readv, process_vm_writev, pidfd_open, pidfd_getfd
    76, 77, 82, 83, 84, 86, 87, 88, 90, 91, 92, 93, 94, 133,  # truncate, rename, mkdir, link, chmod, chown, mknod
    258, 259, 260, 263, 264, 265, 266, 268, 316, 319,  # the same by folder descriptor, memfd_create
    155, 161, 165, 166, 272, 308,  # pivot_root, chroot, mount, umount2, unshare, setns
    248, 249, 250, 298, 321, 323, 425,  # keys, perf_event_open, bpf, userfaultfd, io_uring_setup
))  # fmt: skip
_AARCH64 = (0xC00000B7, 220, 435, (
    56, 265, 437,
    198, 199, 200, 201, 202, 203, 242,
    221, 281,
    129, 117, 270, 271, 434, 438,
    45, 46, 33, 34, 35, 36, 37, 38, 52, 53, 54, 55, 276, 279,
    39, 40, 41, 51, 97, 268,
    217, 218, 219, 241, 280, 282, 425,
))  # fmt: skip

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_CLONE_THREAD = 0x10000
_X32 = 0x40000000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2


def deny_outside() -> bool:
    """Install the filter on this thread and those it starts; denied calls fail with EPERM.

    Returns False on a machine whose kernel or processor it does not fit. There is no way back.
    """
    table = {"x86_64": _X86_64, "aarch64": _AARCH64}.get(os.uname().machine)
    if sys.platform != "linux" or table is None or struct.calcsize("P") != 8:
        return False
    program = _program(*table)
    steps = ctypes.create_string_buffer(program, len(program))
    filters = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(steps)))
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero) != 0:
        return False
    return bool(libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_MODE_FILTER), filters, zero, zero) == 0)


def _program(arch: int, clone: int, clone3: int, denied: tuple[int, ...]) -> bytes:
    """Classic BPF over struct seccomp_data: number at 0, architecture at 4, first argument's low half at 16."""
    refuse = _ERRNO | errno.EPERM
    steps = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, arch),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, refuse),
        (_EQUAL, 0, 1, clone3),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),  # the C library then starts its threads with clone
    ]
    for number in denied:
        steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, refuse)]
    steps += [
        (_EQUAL, 0, 3, clone),
        (_LOAD, 0, 0, 16),
        (_ANY_BIT, 1, 0, _CLONE_THREAD),
        (_RETURN, 0, 0, refuse),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("HBBI", code, yes, no, value) for code, yes, no, value in steps)
