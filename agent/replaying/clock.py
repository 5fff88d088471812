"""The clock of a question that is played again: recorded time while the record lasts, then on from there."""

from __future__ import annotations

from keyeloop.agent.replaying.tape import Tape
from keyeloop.runtime.clock import Clock
from keyeloop.runtime.events import Noticed


class TapedClock:
    """Durations as recorded: what lies between the end of the record and now does not count."""

    def __init__(self, tape: Tape, clock: Clock) -> None:
        self._tape, self._clock = tape, clock
        self._lag_s: float | None = None

    def now(self) -> float:
        """The real time."""
        return self._clock.now()

    def monotonic(self) -> float:
        """Seconds of the recorded run's own time."""
        if self._tape.left:
            upcoming = self._tape.upcoming
            if isinstance(upcoming, Noticed) and upcoming.code == "seconds":
                return upcoming.time_s  # the run is out of them here
            return self._tape.last.time_s
        if self._lag_s is None:
            self._lag_s = self._clock.monotonic() - self._tape.last.time_s
        return self._clock.monotonic() - self._lag_s

    def run_id(self) -> str:
        return self._clock.run_id()
