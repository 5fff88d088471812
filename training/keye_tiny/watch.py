"""Ends a rank that hangs: one that waits for a rank that is gone, or for a device that no longer answers."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable

GRACE_S = 5.0
"""From the request to stop to the end, for a run that no longer takes steps."""
STUCK_S = 90.0
"""The longest that a step may take."""


class Watch:
    """A thread that outlives a main thread stuck in the driver.

    The wish to stop is noticed even then, since the interpreter writes signals into a socket before Python sees them.
    """

    def __init__(
        self, end: Callable[[int], None] = os._exit, *, grace_s: float = GRACE_S, stuck_s: float = STUCK_S
    ) -> None:
        self._end, self._grace_s, self._stuck_s = end, grace_s, stuck_s
        self._beat = 0.0
        self._told: float | None = None
        self._done = threading.Event()
        self._ear, self._mouth = socket.socketpair()
        self._mouth.setblocking(False)
        self._ear.settimeout(0.2)
        self._before = signal.set_wakeup_fd(self._mouth.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def beat(self) -> None:
        """A step is done."""
        self._beat = time.monotonic()

    def _run(self) -> None:
        while not self._done.is_set():
            try:
                heard = self._ear.recv(64)
            except TimeoutError:
                heard = b""
            except OSError:
                return
            now = time.monotonic()
            if bytes([signal.SIGTERM]) in heard and self._told is None:
                self._told = now
            since = max(self._beat, self._told or 0.0)
            limit_s = self._stuck_s if self._told is None else self._grace_s
            if since and now - since > limit_s:
                print(f"no step for {now - since:.0f} s; ending this rank", flush=True)
                self._end(3)
                return

    def close(self) -> None:
        """Stop watching."""
        self._done.set()
        signal.set_wakeup_fd(self._before)
        self._thread.join(timeout=1.0)
        self._ear.close()
        self._mouth.close()
