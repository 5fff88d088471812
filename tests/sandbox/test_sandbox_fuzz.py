"""Workers that lie at random: every call has one result in time, nothing grows, nothing stays open.

``KEYELOOP_FUZZ_SECONDS=3600 pytest tests/sandbox/test_sandbox_fuzz.py`` goes on for an hour; ``KEYELOOP_FUZZ_SEED``
begins elsewhere than at 1.
"""

from __future__ import annotations

import gc
import os
import resource
import time
from collections import Counter

import pytest

from keyeloop.runtime.errors import InputError, SandboxError
from keyeloop.sandbox import ExecResult, Limits, SandboxSpec
from tests.sandbox.hostile_worker import HostileSandbox, open_files

SECONDS = float(os.environ.get("KEYELOOP_FUZZ_SECONDS", "4"))
QUICK = Limits(wall_s=0.05, interrupt_grace_s=0.05, frame_bytes=1 << 16)
FIRST_SEED = int(os.environ.get("KEYELOOP_FUZZ_SEED", "1"))
MOST_S = 10.0
"""For one call, whatever the worker says; it takes a fifth of a second, unless others have the machine."""
GROWTH_KIB = 64 << 10
STATUSES = {"ok", "error", "timeout", "oom", "crashed", "protocol"}


def one_run(seed: int, seen: Counter[str]) -> None:
    """A few calls to one lying worker after another."""
    with HostileSandbox(SandboxSpec(limits=QUICK), seed) as sandbox:
        for index in range(1, 6):
            begun_s = time.monotonic()
            result = sandbox.exec("print('true')")
            assert isinstance(result, ExecResult) and result.status in STATUSES and result.index == index, seed
            assert time.monotonic() - begun_s < MOST_S, seed
            assert sum(each.size for each in sandbox.artifacts()) <= QUICK.artifacts_total_bytes, seed
            assert len(repr(result)) < 1 << 20, seed
            seen[result.status] += 1
            for ask in (lambda: sandbox.get("x"), lambda: sandbox.put("y", b"data" * 20_000)):
                try:
                    ask()
                except (InputError, SandboxError) as error:
                    seen[type(error).__name__] += 1


@pytest.mark.timeout(SECONDS * 2 + 60)
def test_a_lying_worker_never_stops_or_swells_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("conversation", "session"):
        monkeypatch.setattr(f"keyeloop.sandbox.{module}.FILES_S", 0.05)
    seen: Counter[str] = Counter()
    one_run(0, seen)
    gc.collect()
    files, memory_kib = open_files(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    stop_s, seed = time.monotonic() + SECONDS, FIRST_SEED
    while time.monotonic() < stop_s:
        one_run(seed, seen)
        seed += 1
    gc.collect()
    assert seed > FIRST_SEED + 2 and {"ok", "protocol", "timeout"} <= set(seen), seen
    assert open_files() <= files
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory_kib
    assert grown_kib < GROWTH_KIB
    print(f"\n{seed - FIRST_SEED} workers from seed {FIRST_SEED}, {grown_kib} KiB grown: {dict(seen)}")
