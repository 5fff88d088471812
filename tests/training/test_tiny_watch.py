"""A rank that hangs is ended; one that takes its steps is not."""

from __future__ import annotations

import os
import signal
import threading
import time

from training.keye_tiny.watch import Watch


def test_a_stuck_rank_is_ended_and_a_busy_one_is_not() -> None:
    ended = threading.Event()
    watch = Watch(lambda code: ended.set(), grace_s=0.3, stuck_s=0.6)
    for _ in range(12):
        watch.beat()
        time.sleep(0.1)
    assert not ended.is_set()
    assert ended.wait(3.0)
    watch.close()


def test_a_rank_that_is_told_to_stop_gets_little_time() -> None:
    ended = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    watch = Watch(lambda code: ended.set(), grace_s=0.3, stuck_s=60.0)
    watch.beat()
    assert not ended.wait(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    assert ended.wait(3.0)
    watch.close()
    signal.signal(signal.SIGTERM, before)
