"""What the child gives up before it sees a byte of a file: memory, processor time, files, its uid, system calls."""

from __future__ import annotations

import math
import os
import resource
import time

from keyeloop.tools.confined.seccomp import deny_outside

MEMORY_BYTES = 4 << 30
OPEN_FILES = 48
NOBODY = 65534


def lock_down() -> bool:
    """Give up for good what decoding does not need; call once everything is imported and warm.

    Files cannot grow, descriptors and memory are few, root becomes nobody. Returns whether the kernel also took a
    filter that refuses opening files, making sockets and starting programs; where it does not, the rest still holds.
    """
    _lower(resource.RLIMIT_AS, MEMORY_BYTES)
    _lower(resource.RLIMIT_FSIZE, 0)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, OPEN_FILES)
    if os.geteuid() == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        except OSError:
            pass  # a root without the right to change uid has no rights worth taking either
    return deny_outside()


def allow_cpu(cpu_s: float) -> None:
    """Let the next request use so many seconds of processor time; the kernel ends the process beyond it."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = math.ceil(time.process_time() + cpu_s)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _lower(limit: int, value: int) -> None:
    _, hard = resource.getrlimit(limit)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (value, value))
