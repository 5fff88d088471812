"""A recorded run that goes on: what it holds, whether it can be asked on, and its journal, open for more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from keyeloop.agent.answer_form import AnswerForm
from keyeloop.agent.inputs import CheckedTask
from keyeloop.runtime.clock import Clock
from keyeloop.runtime.content import Message, Text, images_of
from keyeloop.runtime.errors import InputError
from keyeloop.runtime.events import ReplyReceived, RunStart
from keyeloop.runtime.journal import JOURNAL, Journal
from keyeloop.runtime.journal.sources import located
from keyeloop.runtime.trajectory import Trajectory
from keyeloop.runtime.views import ViewBook
from keyeloop.tools.base import Tool
from keyeloop.tools.toolset import Toolset


@dataclass(frozen=True)
class Past:
    """Everything that was said in a run so far; nobody else writes its journal until :meth:`close`."""

    journal: Journal
    run: Trajectory
    history: tuple[Message, ...]
    """As the next request begins, evicted pictures replaced by their stubs, open calls closed with an error."""
    cut_off: tuple[Message, ...]
    """The end of ``history`` that is not recorded yet: the errors of calls that were cut off or not made."""

    @classmethod
    def open(cls, folder: Path, clock: Clock) -> Past:
        """Read the run in ``folder``; what a killed process wrote of its last line is dropped.

        Raises InputError for a run that cannot go on, and JournalError where another process is at it.
        """
        if not (folder / JOURNAL).is_file():
            raise InputError(f"no run in {folder}: name the folder of a run, the one that holds {JOURNAL}")
        journal = Journal.reopen(folder, clock)
        try:
            return cls.of(journal, Trajectory.read(folder))
        except BaseException:
            journal.close()
            raise

    @classmethod
    def of(cls, journal: Journal, run: Trajectory) -> Past:
        """A run that was read, and the journal that it goes on in. Raises as :meth:`open` does."""
        recorded = _messages(run)
        cut_off = _closing(recorded, run.folder)
        _require_pictures(recorded, run)
        return cls(journal, run, (*recorded, *cut_off), cut_off)

    @property
    def turns(self) -> int:
        """Number of the last turn."""
        return max((step.turn for step in self.run.steps), default=0)

    @property
    def calls(self) -> int:
        """How many calls the model has asked for."""
        return sum(len(event.message.tool_calls) for event in self.run.events if isinstance(event, ReplyReceived))

    def task(self, question: str, form: AnswerForm | None = None) -> CheckedTask:
        """Another question about the same inputs, whose files are not opened. InputError for an empty one."""
        if not question.strip():
            raise InputError("the question is empty: say what you want to know")
        documents = self.run.start.config.get("documents")
        sources = located(self.run.start.inputs, self.run.folder)
        return CheckedTask(question.strip(), sources, None if documents is None else Path(documents), form)

    def views(self) -> ViewBook:
        """The run's views under their handles; new ones count on."""
        book = ViewBook()
        for view in self.run.views().values():
            book.restore(view)
        return book

    def choose(self, tools: Toolset) -> Toolset:
        """The tools that the run had, in its order. InputError names those that are missing among ``tools``."""
        return recorded_tools(self.run.start, tools)

    def close(self) -> None:
        """Let go of the journal; idempotent."""
        self.journal.close()


def recorded_tools(start: RunStart, tools: Toolset) -> Toolset:
    """The tools that a run was begun with, in its order. InputError names those that are missing among ``tools``."""
    offered: dict[str, Tool] = {tool.spec.name: tool for tool in tools}
    missing = [spec.name for spec in start.tools if spec.name not in offered]
    if missing:
        raise InputError(
            f"the run {start.run_id} had the tools {', '.join(missing)}, which are not given now: give them "
            "again (--tool FILE.py:function, --search for those that look outside, in Python Agent(tools=[...]))"
        )
    return Toolset(offered[spec.name] for spec in start.tools)


def _messages(run: Trajectory) -> tuple[Message, ...]:
    try:
        messages = run.messages()
    except IndexError:
        raise InputError(f"the run in {run.folder} cannot go on: an edit of its context is of no message") from None
    if not messages or not run.start.messages:
        raise InputError(f"the run in {run.folder} cannot go on: it does not record what it began with")
    return messages


def _closing(messages: Sequence[Message], folder: Path) -> tuple[Message, ...]:
    """Results for the calls of the last turn that have none. InputError where other results are out of place."""
    open_calls: dict[str, str] = {}
    for index, message in enumerate(messages):
        if message.role == "tool":
            if next(iter(open_calls), None) != message.tool_call_id:
                raise InputError(f"the run in {folder} cannot go on: message {index} answers no call that is due")
            open_calls.pop(message.tool_call_id or "")
            continue
        if open_calls:
            raise InputError(
                f"the run in {folder} cannot go on: {next(iter(open_calls))} has no result before message {index}"
            )
        open_calls = {call.id: call.name for call in message.tool_calls}
    return tuple(
        Message("tool", (Text(f"Error: {name} gave no result; call it again if need be"),), tool_call_id=call_id)
        for call_id, name in open_calls.items()
    )


def _require_pictures(messages: Sequence[Message], run: Trajectory) -> None:
    pictures = (image for message in messages for part in message.parts for image in images_of(part))
    for image in pictures:
        path = run.media.path(image.media.sha256)
        if not path.is_file():
            raise InputError(f"the run in {run.folder} cannot go on: its picture {path} is missing")
