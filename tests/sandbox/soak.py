"""Many executions in many sandboxes at once while processes are killed at random: one result a call, nothing left.

``python -m tests.sandbox.soak`` runs 1,000 in 50 sandboxes on bubblewrap and prints what came of them;
``--engine docker`` does so on another engine. Any process of a sandbox whose call is running may be hit, the one that
would have told its last words included.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from docker.errors import DockerException

from keyeloop.runtime.errors import SandboxError
from keyeloop.sandbox import Limits, SandboxSpec, open_sandbox
from keyeloop.sandbox.cgroup import find_cgroup_home
from keyeloop.sandbox.opening import ENGINES
from keyeloop.sandbox.session import WorkerSandbox
from tests.sandbox.engines import KEPT_CONNECTIONS
from tests.sandbox.host_view import Trace, wait_for
from tests.sandbox.hostile_worker import open_files

LIMITS: Final = Limits(wall_s=5, interrupt_grace_s=0.3, memory_bytes=256 << 20, pids=32)
CODES: Final = (
    ("print({token!r})", 5.0), ("print({token!r})\nx = [0] * 10_000", 5.0),
    ("print({token!r})\nopen('/out/{token}', 'w').write('x' * 1000)", 5.0),
    ("print({token!r})\nimport os\nif os.fork() == 0:\n    import time\n    time.sleep(60)\n    os._exit(0)", 5.0),
    ("print({token!r}, flush=True)\nwhile True: pass", 0.1),
    ("print({token!r}, flush=True)\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)", 5.0),
    ("print({token!r}, flush=True)\nimport os\nos._exit(3)", 5.0),
    ("print({token!r})\nraise ValueError('no')", 5.0),
    ("print({token!r}, flush=True)\nimport time\ntime.sleep(0.05)", 5.0),
)  # fmt: skip
"""Code, and the seconds it is given; most end well."""
_USUAL: Final = (8, 8, 4, 3, 1, 1, 1, 2, 6)
KILL_EVERY_S: Final = 0.1


@dataclass
class Tally:
    """What came of all calls."""

    statuses: Counter[str] = field(default_factory=Counter)
    states_lost: int = 0
    kills: int = 0
    """Of processes of a sandbox, while a call of it ran."""
    traces: set[Trace] = field(default_factory=set)
    """Of every worker, to look for what stayed."""
    wrong: list[str] = field(default_factory=list)
    """Calls whose result was not theirs, or that had none."""


@dataclass(frozen=True)
class Held:
    """What this process and machine hold on behalf of sandboxes."""

    files: int
    threads: int
    groups: frozenset[Path]
    temporary: frozenset[Path]

    @classmethod
    def now(cls) -> Held:
        gc.collect()
        folders = set(find_cgroup_home().folders.values())
        groups = frozenset(path for folder in folders for path in folder.glob(f"keyeloop-{os.getpid()}-*"))
        temporary = frozenset(Path(tempfile.gettempdir()).glob("keyeloop-probe-*"))
        return cls(open_files(), threading.active_count(), groups, temporary)


def soak(
    opener: Callable[[SandboxSpec], WorkerSandbox], sandboxes: int, executions: int, seed: int = 0, at_once: int = 8
) -> Tally:
    """Share ``executions`` among ``sandboxes``, ``at_once`` of them alive at a time."""
    tally, guard = Tally(), threading.Lock()
    calling: dict[int, Trace] = {}
    """Of each sandbox whose call is running."""
    done = threading.Event()

    def use(number: int) -> None:
        dice = random.Random(seed * 1000 + number)
        with opener(SandboxSpec(limits=LIMITS)) as sandbox:
            for index in range(1, executions // sandboxes + 1):
                with contextlib.suppress(OSError, SandboxError, DockerException):  # killed just now
                    trace = Trace.of(sandbox)
                    with guard:
                        calling[number] = trace
                        tally.traces.add(trace)
                token = f"t{number}-{index}"
                code, seconds = dice.choices(CODES, _USUAL)[0]
                result = sandbox.exec(code.format(token=token), timeout_s=seconds)
                with guard:
                    calling.pop(number, None)
                    tally.statuses[result.status] += 1
                    tally.states_lost += result.state_lost
                    silent = result.status in ("crashed", "timeout") and result.state_lost and not result.stdout
                    mine = result.stdout == f"{token}\n" or silent
                    if result.index != index or not mine:
                        tally.wrong.append(f"{token}: {result}")

    def kill() -> None:
        dice = random.Random(seed)
        while not done.wait(KILL_EVERY_S):
            with guard:
                found = [pid for trace in calling.values() if trace.tells for pid in trace.pids()]
                if found:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(dice.choice(found), signal.SIGKILL)
                        tally.kills += 1

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(use, range(sandboxes)))
    finally:
        done.set()
        killer.join()
    return tally


def require_nothing_left(before: Held, tally: Tally, kept_files: int = 0) -> None:
    """Fail, naming what has stayed, with two seconds for the kernel to let go.

    ``kept_files`` is how many descriptors an engine's client may keep for later.
    """

    def let_go() -> bool:
        now = Held.now()
        return now.groups <= before.groups and now.files <= before.files + kept_files

    assert wait_for(let_go, 2), Held.now()
    now = Held.now()
    assert now.threads <= before.threads and now.temporary <= before.temporary, now
    left = {trace: trace.pids() for trace in tally.traces if trace.tells}
    assert not any(left.values()), left


def main() -> None:
    """Print what came of it; raises AssertionError for anything left behind."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--engine", default="bubblewrap")
    options.add_argument("--sandboxes", type=int, default=50)
    options.add_argument("--executions", type=int, default=1000)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    open_sandbox(engine=chosen.engine).close()
    before, begun_s = Held.now(), time.monotonic()
    made = {each.engine: each for each in ENGINES}[chosen.engine]
    tally = soak(made, chosen.sandboxes, chosen.executions, chosen.seed)
    print(f"{chosen.engine}: {dict(tally.statuses)} in {time.monotonic() - begun_s:.0f} s")
    print(f"state lost {tally.states_lost} times, {tally.kills} kills from outside, wrong results: {tally.wrong or 0}")
    assert tally.kills > 0 and not tally.wrong and tally.statuses.total() == chosen.executions
    require_nothing_left(before, tally, KEPT_CONNECTIONS if chosen.engine == "docker" else 0)
    print("nothing left: processes, control groups, temporary files, descriptors, threads")


if __name__ == "__main__":
    main()
