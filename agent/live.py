"""A run as it happens, in a terminal: finished steps stay above, what streams moves below; plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.text import Text as Styled

from keyeloop.agent.watching import Watching
from keyeloop.agent.wording import (
    call_words,
    citation_words,
    clean,
    clipped,
    counted,
    parts_words,
    progress_words,
    source_words,
    usage_words,
)
from keyeloop.agent.working import Working
from keyeloop.model_backend.base import Delta
from keyeloop.runtime.content import Usage
from keyeloop.runtime.events import (
    ContextEdited,
    Event,
    Noticed,
    QuestionAsked,
    ReplyReceived,
    RequestSent,
    RunEnded,
    RunStart,
    ToolCalled,
    ToolReturned,
)
from keyeloop.runtime.wire import from_wire, parts_from_wire

TAIL_LINES = 6
"""How much of a reply is shown while it streams."""
TAIL_CHARS = 2000
"""How much of it is looked at for that: every piece draws the tail again."""


class LiveView:
    """Shows the events of one run on ``console``. Use as a context manager; feed it with :meth:`on`."""

    def __init__(self, console: Console, runs: Path, run: Path | None = None) -> None:
        """``run`` is the folder of a run that goes on; a new one gets its own below ``runs``."""
        self._console, self._runs = console, runs
        self._live = Live(console=console, transient=True, refresh_per_second=12) if console.is_terminal else None
        self._streamed = ""
        self._part: float | None = None
        """Of the frames that are being decoded: done, 0 to 1."""
        self._doing = "starting"
        self._turns = 0
        self.run = run
        """Folder of the run, once it has begun."""

    def __enter__(self) -> LiveView:
        if self._live is not None:
            self._live.start()
            self._refresh(now=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def on(self, event: Event | Delta | Watching | Working) -> None:
        """Show one event of the stream."""
        match event:
            case Delta():
                self._streamed = (self._streamed + event.text)[-TAIL_CHARS:]
            case Watching():
                self._doing = f"decoding {event.source}: {event.done} of {counted(event.total, 'frame')}"
                self._part = event.done / event.total
            case Working(call, progress):
                told = (clipped(progress.text, 80), progress_words(progress.done, progress.total))
                self._doing = f"{call.name}: {', '.join(filter(None, told))}"
                self._part = progress.done / progress.total if progress.done and progress.total else None
            case RunStart():
                self._part = None
                self.run = self.run or self._runs / event.run_id
                self._line(f"{event.model} · {self.run}", "bold")
                for source in event.inputs:
                    self._line(source_words(source), "dim")
            case QuestionAsked():
                self._line(f"{event.model} · {self.run}, question {event.number}", "bold")
            case RequestSent():
                self._turns, self._streamed = self._turns + 1, ""
                self._doing = f"step {event.turn}: asking with {counted(event.input_tokens, 'token')}"
            case ReplyReceived():
                self._replied(event)
            case ToolCalled():
                self._line(f"   → {call_words(event.call)}", "cyan")
                self._doing = f"step {event.turn}: {event.call.name}"
            case ToolReturned():
                self._part = None
                words = parts_words(parts_from_wire(event.parts))
                self._line(f"   ← {words}  {event.duration_s:.2f} s", "red" if event.error else "green")
            case ContextEdited():
                self._line(f"   ✂ {clipped(event.stub, 160)}", "yellow")
            case Noticed():
                self._line(f"   ! {clipped(event.text)}", "yellow")
            case RunEnded():
                self._ended(event)
        self._refresh(now=not isinstance(event, Delta | Watching | Working))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the terminal alone meanwhile, for a question that is asked there."""
        if self._live is None:
            yield
            return
        self._live.stop()
        try:
            yield
        finally:
            self._live.start()

    def _replied(self, event: ReplyReceived) -> None:
        message = from_wire(event.message)
        self._streamed = ""
        self._line(f"{event.turn:2} {event.duration_s:.2f} s, {usage_words(event.usage)}", "dim")
        if message.reasoning.strip():
            self._line(f"   … {clipped(message.reasoning)}", "dim italic")
        if message.text.strip() and message.tool_calls:
            self._line(f"   {clipped(message.text)}", "")

    def _ended(self, event: RunEnded) -> None:
        self._line("", "")
        if event.answer:
            self._line(clean(event.answer), "bold")
        for citation in event.citations:
            self._line(f"  {citation_words(citation)}", "cyan" if citation.seen else "yellow")
        self._line(ending_words(event, self._turns), "dim")
        if self.run is not None:
            onward = f'to go on: keyeloop ask {self.run} "..."'
            self._line(f"kept in {self.run}: keyeloop show {self.run}, and {onward}", "dim")

    def _line(self, text: str, style: str) -> None:
        self._console.print(Styled(text, style=style), soft_wrap=self._live is None)

    def _refresh(self, *, now: bool) -> None:
        if self._live is None:
            return
        tail = clean(self._streamed).splitlines()[-TAIL_LINES:]
        spinner = Spinner("dots", Styled(self._doing, style="dim"))
        bar = [] if self._part is None else [ProgressBar(1.0, self._part, width=40)]
        self._live.update(Group(*(Styled(line, style="dim italic") for line in tail), spinner, *bar), refresh=now)


def ending_words(end: RunEnded, turns: int) -> str:
    """How a run ended, in one line."""
    why = f" ({clipped(end.reason)})" if end.reason else ""
    used = f", {usage_words(end.usage)}" if end.usage != Usage() else ""
    return f"{end.status}{why}: {counted(turns, 'step')}, {end.duration_s:.1f} s{used}"
