"""A host program for a user without rights: runs every attack, and what bounds code has without control groups.

Standard library and ``keyeloop.sandbox`` only. Prints one JSON object.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict

from keyeloop.sandbox import Limits, SandboxSpec, open_sandbox
from tests.sandbox.attacks import attacks

FORKS = """
import os, signal, time
children = []
try:
    for _ in range(1500):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        children.append(child)
except OSError:
    pass
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
print(len(children))
"""
STUBBORN = """
import os, signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
os.fork()
while True:
    time.sleep(1)
"""


def left_behind(within_s: float) -> list[str]:
    """Sandboxes of this user that are still there when the time is up; init may reap an orphan a moment late."""
    deadline_s = time.monotonic() + within_s
    while True:
        listed = subprocess.run(
            ["ps", "-o", "args=", "-u", str(os.getuid())], capture_output=True, text=True, check=False
        )
        left = [line for line in listed.stdout.splitlines() if "bwrap" in line]
        if not left or time.monotonic() >= deadline_s:
            return left
        time.sleep(0.05)


def main() -> None:
    os.environ["SOME_API_KEY"] = "canary"
    limits = Limits(wall_s=10, interrupt_grace_s=0.5, pids=40, memory_bytes=256 << 20)
    said: dict[str, object] = {"uid": os.getuid()}
    listener = socket.create_server(("127.0.0.1", 0))
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind(f"\0keyeloop-{os.getpid()}")
    abstract.listen()
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with tempfile.NamedTemporaryFile("w") as secret:
        secret.write("secret")
        secret.flush()
        code_by_name = attacks(secret.name, listener.getsockname()[1], f"keyeloop-{os.getpid()}", victim.pid)
        started_s = time.monotonic()
        with open_sandbox(SandboxSpec(limits=limits)) as sandbox:
            said["open_s"] = time.monotonic() - started_s
            said["isolation"] = asdict(sandbox.isolation)
            said["attacks"] = {name: sandbox.exec(code).stdout for name, code in code_by_name.items()}
            said["environ"] = sandbox.exec("print(open('/proc/1/environ').read(), __import__('os').environ)").stdout
            said["forks"] = int(sandbox.exec(FORKS).stdout)
            said["memory"] = sandbox.exec("bytearray(1 << 30)").status
            said["shared memory"] = sandbox.exec("import mmap\nmmap.mmap(-1, 1 << 30)").status
            said["stubborn"] = sandbox.exec(STUBBORN, timeout_s=0.3).status
            said["after"] = sandbox.exec("print(417 + 88)").stdout
    said["victim"] = victim.poll()
    victim.kill()
    victim.wait()
    said["left"] = left_behind(within_s=2.0)
    print(json.dumps(said))


main()
