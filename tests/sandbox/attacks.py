"""Attacks as code for a sandbox: each prints ``held``, or what it could do. Any user can run them."""

from __future__ import annotations

import platform
from collections.abc import Mapping

from keyeloop.sandbox.seccomp import FORBIDDEN, UNKNOWN_TO_CALLERS
from keyeloop.sandbox.syscalls import number

MACHINE = platform.machine()
NEWUSER, NEWNS, NEWNET = 0x10000000, 0x00020000, 0x40000000

TRY = """
import ctypes, errno, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
done = []

def syscall(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(number, *(ctypes.c_long(argument) for argument in arguments))
    return "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]

def attempt(name, act, *arguments):
    try:
        act(*arguments)
    except OSError:
        return
    done.append(name)

def want(name, got, *expected):
    if got not in expected:
        done.append(f"{name}: {got}")
"""
TELL = "\nprint(*(done or ['held']), sep='; ')\n"

HIDDEN = tuple(
    "/etc/shadow /etc/passwd /root /home /run /sys /proc/1/root/etc/shadow /proc/1/environ /proc/1/mem /proc/kcore "
    "/var/run/docker.sock /dev/vda /dev/sda /dev/kvm /dev/mem".split()
)
LOCKED = tuple(
    "/etc/new /usr/new /in/new /dev/new /new /opt/new /proc/sys/kernel/core_pattern /proc/sys/vm/drop_caches "
    "/proc/sysrq-trigger /sys/kernel/new".split()
)


def attacks(secret_path: str, port: int, abstract_name: str, victim_pid: int) -> Mapping[str, str]:
    """Attacks by name, against a file, a TCP listener, an abstract socket and a process of the host."""
    hidden = (*HIDDEN, secret_path, f"/proc/{victim_pid}/environ")
    forbidden = {name: call for name in sorted(FORBIDDEN) if (call := number(name, MACHINE)) is not None}
    unknown = {name: call for name in sorted(UNKNOWN_TO_CALLERS) if (call := number(name, MACHINE)) is not None}
    clone, ioctl = number("clone", MACHINE), number("ioctl", MACHINE)
    bodies = {
        "read the host": f"""
own = open("/proc/self/environ", "rb").read()
def peek(path):
    with open(path, "rb") as file:
        if file.read(1 << 16) in (b"", own):
            raise OSError("nothing, or what this process was given itself")
for path in {hidden!r}:
    if os.path.isdir(path):
        if os.access(path, os.R_OK) and os.listdir(path):
            done.append(path)
    else:
        attempt(path, peek, path)
""",
        "write the host": f"""
for path in {LOCKED!r}:
    attempt(path, os.open, path, os.O_WRONLY | os.O_CREAT)
    attempt(path + " as a folder", os.mkdir, path)
""",
        "reach a network": f"""
for family in range(2, 46):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
        attempt(f"socket family {{family}}", socket.socket, family, kind)
attempt("loopback", socket.create_connection, ("127.0.0.1", {port}), 1)
local = socket.socket(socket.AF_UNIX)
attempt("abstract socket", local.connect, "\\0" + {abstract_name!r})
""",
        "touch other processes": f"""
for call in (lambda: os.kill({victim_pid}, 9), lambda: os.setpriority(os.PRIO_PROCESS, {victim_pid}, 19),
             lambda: os.sched_setaffinity({victim_pid}, [0]), lambda: os.pidfd_open({victim_pid})):
    attempt("a signal or the like", call)
seen = [int(name) for name in os.listdir("/proc") if name.isdigit()]
want("processes", len(seen) <= 2, True)
""",
        "call the kernel": f"""
for name, call in {forbidden!r}.items():
    want(name, syscall(call, 0, 0, 0, 0, 0, 0), "EPERM")
for name, call in {unknown!r}.items():
    want(name, syscall(call, 0, 0, 0, 0, 0, 0), "ENOSYS")
want("a call of the future", syscall(463, 0, 0, 0, 0, 0, 0), "ENOSYS")
for flag in ({NEWUSER}, {NEWNS}, {NEWNET}):
    want("clone into a namespace", syscall({clone}, flag | 17, 0, 0, 0, 0), "EPERM")
for request in (0x5412, 0x541C):
    want("typing into a terminal", syscall({ioctl}, 0, request, 0), "EPERM")
""",
        "be privileged": """
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
for name in ("CapInh", "CapPrm", "CapEff", "CapBnd"):
    want(name, int(status[name], 16), 0)
want("CapAmb", any(libc.prctl(47, 1, capability, 0, 0) == 1 for capability in range(64)), False)
want("NoNewPrivs", libc.prctl(39, 0, 0, 0, 0), 1)
want("Seccomp", status["Seccomp"].strip(), "2")
want("uid", 0 in (os.getuid(), os.geteuid(), os.getgid()), False)
want("groups", [group for group in os.getgroups() if group not in (os.getgid(), 65534)], [])
attempt("setuid", os.setuid, 0)
import resource
for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE):
    soft, hard = resource.getrlimit(kind)
    want("a limit", soft == hard != resource.RLIM_INFINITY, True)
    try:
        resource.setrlimit(kind, (hard + 1, hard + 1))
        done.append("raised a limit")
    except (OSError, ValueError):
        pass
""",
    }
    return {name: TRY + body + TELL for name, body in bodies.items()}
