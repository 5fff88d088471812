"""The first process of a container: guards the worker, and tells its last words.

It is Python like the worker, so that any image with a Python will do. It loads the system-call filter before anything
else can run, forks the worker, passes interrupts on to it, collects orphans, and ends everything when the worker is
gone or the host hangs up: a container outlives neither. Code cannot signal, read or trace it.
"""

from __future__ import annotations

import json
from typing import Final

from keyeloop.sandbox.running import BOOT

CAPTURED: Final = (100, 101)
"""Descriptors of the files that catch standard output and error; they outlive the worker."""

_FIRST: Final = """
import ctypes, json, os, select, signal, struct
libc = ctypes.CDLL(None, use_errno=True)

def prctl(*arguments):
    numbers = [*arguments, 0, 0, 0, 0][:5]
    if libc.prctl(*(ctypes.c_ulong(number) for number in numbers)):
        raise OSError(ctypes.get_errno(), "prctl" + repr(arguments[:2]))

prctl(38, 1)  # PR_SET_NO_NEW_PRIVS
program = ctypes.create_string_buffer(bytes.fromhex("@FILTER@"))
whole = ctypes.create_string_buffer(struct.pack("HP", (len(program) - 1) // 8, ctypes.addressof(program)))
prctl(22, 2, ctypes.addressof(whole))  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
for name, number in (("stdout", @OUT@), ("stderr", @ERR@)):
    caught = os.memfd_create(name)
    os.dup2(caught, number)
    os.close(caught)
ends = []
if "@PIPES@":  # the host holds the other ends: no open waits
    ends.append(os.open("@PIPES@/requests", os.O_RDONLY | os.O_NONBLOCK))
    ends.append(os.open("@PIPES@/replies", os.O_WRONLY | os.O_NONBLOCK))
worker = os.fork()
if worker:
    try:
        for end in ends:
            os.close(end)
        prctl(4, 0)  # PR_SET_DUMPABLE: /proc/1 is closed to code
        os.close(1)
        told, tell = os.pipe()
        os.set_blocking(tell, False)
        signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, lambda *_: os.kill(worker, signal.SIGINT))
        poll = select.poll()
        poll.register(0, 0)
        poll.register(told, select.POLLIN)
        gone = False
        while not gone:
            pid = -1
            while pid and not gone:
                pid, _ = os.waitpid(-1, os.WNOHANG)
                gone = pid == worker
            for file, _ in [] if gone else poll.poll():
                gone = gone or file == 0
                if file == told:
                    os.read(told, 512)
    finally:
        try:
            os.kill(-1, signal.SIGKILL)
        except OSError:
            pass
        words = [os.pread(number, @KEPT@, 0).decode("utf-8", "replace") for number in (@OUT@, @ERR@)]
        rest = b"\\n" + json.dumps(words).encode() + b"\\n"
        while rest:
            rest = rest[os.write(2, rest):]
        os._exit(0)
for number, end in enumerate(ends):
    os.set_blocking(end, True)
    os.dup2(end, number)
    os.close(end)
"""


def first_program(seccomp: bytes, kept_bytes: int, pipes: str = "") -> str:
    """What a container's Python runs with ``-c``: the guard, which forks the worker, which takes its program.

    ``pipes`` is the folder of :class:`~keyeloop.sandbox.docker.pipes.NamedPipes`, where the worker talks through them
    rather than through the container's standard streams.
    """
    filled = {"@FILTER@": seccomp.hex(), "@KEPT@": str(kept_bytes), "@PIPES@": pipes}
    filled |= {"@OUT@": str(CAPTURED[0]), "@ERR@": str(CAPTURED[1])}
    text = _FIRST
    for mark, value in filled.items():
        text = text.replace(mark, value)
    return text + BOOT


def last_words(said: str, limit_bytes: int) -> tuple[str, str]:
    """What the worker had written to standard output and error, out of all that its first process and runtime said.

    Where the first process never spoke, all of it is why: the second text.
    """
    for line in reversed(said.splitlines()):
        try:
            out, err = json.loads(line)
        except (ValueError, TypeError):
            continue
        return str(out)[:limit_bytes], str(err)[:limit_bytes]
    return "", said[-limit_bytes:]
