"""What a run took so far, counted event by event, so that its last line tells all of it."""

from __future__ import annotations

from keyeloop.runtime.events import (
    Event,
    QuestionAsked,
    ReplyReceived,
    RequestSent,
    RunEnded,
    RunStart,
    RunTotals,
    ToolCalled,
    ToolReturned,
)


class Totals:
    """Counts; :attr:`now` is what all the events before took."""

    def __init__(self) -> None:
        self.now = RunTotals()
        self._begun_s = self._last_s = 0.0
        self._before_s = 0.0

    def add(self, event: Event) -> RunTotals:
        """Count one more event, which is dated; what all of them took."""
        change: dict[str, object] = {}
        match event:
            case RunStart() | QuestionAsked():
                self._before_s += self._last_s - self._begun_s
                self._begun_s = event.time_s
                change = {"questions": self.now.questions + 1}
            case RequestSent():
                change = {"turns": self.now.turns + 1}
            case ReplyReceived():
                change = {"usage": self.now.usage + event.usage}
            case ToolCalled():
                change = {"tool_calls": self.now.tool_calls + 1}
            case ToolReturned():
                change = {"views": self.now.views + len(event.views), "errors": self.now.errors + event.error}
            case RunEnded():
                pass
        self._last_s = event.time_s
        change["duration_s"] = self._before_s + self._last_s - self._begun_s
        self.now = self.now.model_copy(update=change)
        return self.now
