"""Attacks that use things up or break the worker: each may lose the sandbox its state, none may cost the host anything.

Each prints what it got hold of, and ends by itself or is ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from keyeloop.sandbox import Limits

MIB: Final = 1 << 20
SMALL: Final = Limits(
    wall_s=2.5, interrupt_grace_s=0.5, memory_bytes=192 * MIB, pids=32, work_bytes=8 * MIB, tmp_bytes=4 * MIB,
    file_bytes=4 * MIB, artifacts_total_bytes=4 * MIB, artifact_bytes=MIB, stdout_bytes=4096,
)  # fmt: skip
"""Bounds that a bomb reaches quickly."""
ENDED: Final = ("timeout", "crashed", "oom")


@dataclass(frozen=True)
class Bomb:
    """Code, how it may end, and the most that its last printed number may be."""

    code: str
    endings: tuple[str, ...]
    most: int | None = None


_FORKS = """
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
_THREADS = """
import threading
stop, started = threading.Event(), []
try:
    for _ in range(1500):
        thread = threading.Thread(target=stop.wait)
        thread.start()
        started.append(thread)
except RuntimeError:
    pass
stop.set()
for thread in started:
    thread.join()
print(len(started))
"""
_CHILD_MEMORY = """
import os
child = os.fork()
if child == 0:
    pieces = []
    try:
        while True: pieces.append(b'x' * (1 << 20))
    finally:
        os._exit(7)
os.waitpid(child, 0)
print(0)
"""
_DEAF = """
import os, signal, time
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
while True:
    pass
"""
_FILL = """
import os
total = 0
for folder in ('/work', '/out', '/tmp', '/dev/shm'):
    for n in range(64):
        try:
            with open(f'{folder}/fill{n}', 'wb', buffering=0) as file:
                while total < 4 << 30: total += file.write(bytes(1 << 16))
        except OSError:
            pass
for folder in ('/work', '/out', '/tmp', '/dev/shm'):
    for n in range(64):
        if os.path.exists(f'{folder}/fill{n}'): os.remove(f'{folder}/fill{n}')
print(total)
"""
_SPARSE = """
import os
grown = 0
for folder in ('/work', '/out', '/tmp', '/dev/shm'):
    file = os.open(f'{folder}/sparse', os.O_CREAT | os.O_WRONLY)
    try:
        os.truncate(file, 1 << 40)
        grown += 1
    except OSError:
        pass
    os.close(file)
    os.remove(f'{folder}/sparse')
print(grown)
"""
_SMALL_FILES = """
import os
count = 0
try:
    for count in range(1_000_000):
        os.close(os.open(f'/tmp/{count}', os.O_CREAT | os.O_WRONLY))
except OSError:
    pass
print(0)
"""
BOMBS: Final[Mapping[str, Bomb]] = {
    "forks": Bomb(_FORKS, ("ok", *ENDED), SMALL.pids + 1),
    "threads": Bomb(_THREADS, ("ok", *ENDED), SMALL.pids + 1),
    "a fork bomb": Bomb("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", ENDED),
    "memory in the worker": Bomb("pieces = []\nwhile True: pieces.append(b'x' * (1 << 20))", ("oom", "timeout")),
    "memory in a child": Bomb(_CHILD_MEMORY, ("ok", *ENDED)),
    "memory at once": Bomb("bytearray(2560 << 20)", ("oom",)),
    "deaf and with a child": Bomb(_DEAF, ("timeout",)),
    "asleep in C": Bomb("import ctypes\nctypes.CDLL(None).sleep(600)", ("timeout",)),
    "full folders": Bomb(_FILL, ("ok", *ENDED), SMALL.work_bytes + 2 * SMALL.tmp_bytes + SMALL.artifacts_total_bytes),
    "a sparse terabyte": Bomb(_SPARSE, ("ok",), 0),
    "a million small files": Bomb(_SMALL_FILES, ("ok", *ENDED), 0),
    "a flood of output": Bomb("import os\nwhile True: os.write(1, b'x' * 65536)", ("error", *ENDED)),
    "exit": Bomb("import os\nos._exit(0)", ("crashed",)),
    "segfault": Bomb("import ctypes\nctypes.string_at(0)", ("crashed",)),
    "closed pipes": Bomb("import os\nos.closerange(3, 300)", ("crashed",)),
    "stopped": Bomb("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", ("timeout",)),
}
