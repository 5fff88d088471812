"""Five attacks that a sandbox must withstand before any code of a model is let in."""

from __future__ import annotations

import json
import os
import tempfile
from typing import Final

from keyeloop.runtime.errors import SandboxError
from keyeloop.sandbox.protocol import Sandbox

PROBE_S: Final = 10.0
INSIDE_PIDS: Final = 16
"""More processes than a sandbox has when it is probed; they are numbered from 1."""
_ATTACKS: Final = """
import json, os, socket

def refused(act, *arguments):
    try:
        act(*arguments)
    except OSError:
        return True
    return False

def seen(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True

def environment(pid):
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read()
    except OSError:
        return b""

pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
others = [pid for pid in pids if pid != os.getpid()]
with open("/proc/net/dev") as file:
    links = [line.split(":")[0].strip() for line in file if ":" in line]
families = ("AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_VSOCK")
print(json.dumps({
    "a file of the host was read": not refused(open, SECRET),
    "another process's environment was read": any(environment(pid) not in (b"", environment("self")) for pid in others),
    "a kernel setting could be written": not refused(os.open, "/proc/sys/kernel/core_pattern", os.O_WRONLY),
    "a network could be reached": links != ["lo"] or not all(
        refused(socket.socket, getattr(socket, name), socket.SOCK_RAW)
        and refused(socket.socket, getattr(socket, name), socket.SOCK_STREAM)
        for name in families if hasattr(socket, name)
    ),
    "processes of the host were seen": len(pids) > 2 or any(seen(pid) for pid in HOST_PIDS),
}))
"""


def _host_pids() -> list[int]:
    """This process and its parent, where their numbers are too high to be those of processes inside as well."""
    return [pid for pid in (os.getpid(), os.getppid()) if pid > INSIDE_PIDS]


def attack(sandbox: Sandbox) -> str:
    """Run the attacks; what succeeded, or an empty string if all were refused. Raises SandboxError as a start does."""
    with tempfile.NamedTemporaryFile(prefix="keyeloop-probe-") as secret:
        code = _ATTACKS.replace("SECRET", repr(secret.name)).replace("HOST_PIDS", repr(_host_pids()))
        result = sandbox.exec(code, timeout_s=PROBE_S)
    try:
        answers = json.loads(result.stdout)
    except ValueError:
        raise SandboxError(f"the sandbox did not finish its probe: {result.status} {result.stderr[-200:]}") from None
    return "; ".join(name for name, succeeded in answers.items() if succeeded)
