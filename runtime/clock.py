"""Time and identity, injectable so that a run can be reproduced to the byte."""

from __future__ import annotations

import secrets
import time
from typing import Protocol


class Clock(Protocol):
    """Where a run reads the time and gets its name."""

    def now(self) -> float:
        """Seconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds that never run backwards, for durations."""

    def run_id(self) -> str:
        """A fresh name for a run: sortable by time, safe as a folder name."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def run_id(self) -> str:
        return time.strftime("%Y%m%d-%H%M%S", time.gmtime(self.now())) + "-" + secrets.token_hex(3)
