"""What a run gives back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python

from keyeloop.agent.answer_form import AnswerForm, read_answer
from keyeloop.agent.playing import StreamEvent, require_no_loop
from keyeloop.runtime.citations import strip_citations
from keyeloop.runtime.content import Usage
from keyeloop.runtime.errors import UsageError
from keyeloop.runtime.events import RunEnded, RunStatus
from keyeloop.runtime.evidence import Citation

if TYPE_CHECKING:
    from keyeloop.agent.agent import Agent


@dataclass(frozen=True)
class Answer:
    """The outcome of one question; ``str()`` is the answer without its citations."""

    text: str
    """As the model wrote it, citations included."""
    status: RunStatus
    """``answered``; ``budget`` or ``stopped`` mark an answer that was asked for before the model was done."""
    citations: tuple[Citation, ...]
    """Each with its source, second and box in source pixels; ``seen`` is False where the run never looked."""
    usage: Usage
    """Sum over all requests of this question."""
    run: Path
    """Folder of the journal and its media."""
    reason: str = ""
    """Why, where the status is not ``answered``."""
    value: Any = None
    """The answer as the type that was asked for (``run(..., answer=...)``); None where it is not of it."""
    form: AnswerForm | None = field(default=None, repr=False, compare=False)
    """The type that was asked for."""
    agent: Agent | None = field(default=None, repr=False, compare=False)
    """Who answered, and is asked on."""

    deps: Any = field(default=None, repr=False, compare=False)
    """What the tools were handed, for this run alone."""

    @classmethod
    def from_end(
        cls, end: RunEnded, run: Path, agent: Agent | None = None, form: AnswerForm | None = None, deps: Any = None
    ) -> Answer:
        """The answer that a run's last event tells of, read as ``form`` where one was asked for."""
        value = read_answer(form, end.answer).value
        return cls(end.answer, end.status, end.citations, end.usage, run, end.reason, value, form, agent, deps)

    async def ask(self, question: str, *, answer: Any = None) -> Answer:
        """Ask another question in the same conversation; see :meth:`Agent.ask`.

        The request begins with all that was said, pictures and thinking included, and the record goes on in the same
        folder. Limits count anew for every question. The conversation goes on behind its last question, whichever
        answer of it is asked. ``answer`` is the type of the new answer.
        """
        return await self._asked().ask(self.run, question, answer=answer, deps=self.deps)

    def ask_sync(self, question: str, *, answer: Any = None) -> Answer:
        """As :meth:`ask`, for scripts. Raises UsageError where an event loop runs already, as in a notebook."""
        require_no_loop("ask_sync", "answer.ask")
        return asyncio.run(self.ask(question, answer=answer))

    def stream_ask(self, question: str, *, answer: Any = None) -> AsyncGenerator[StreamEvent, None]:
        """As :meth:`ask`, yielding events as they happen; see :meth:`Agent.stream_ask`."""
        return self._asked().stream_ask(self.run, question, answer=answer, deps=self.deps)

    def _asked(self) -> Agent:
        if self.agent is None:
            raise UsageError(f"this answer has no agent to ask: call agent.ask({str(self.run)!r}, ...)")
        return self.agent

    @property
    def fits(self) -> bool:
        """Whether it is of the type that was asked for, if one was."""
        return read_answer(self.form, self.text).problem is None

    def __str__(self) -> str:
        return strip_citations(self.text)

    def to_json(self) -> dict[str, Any]:
        """For a program: answer, status, citations (times in seconds, boxes in source pixels), run, usage."""
        made: dict[str, Any] = to_jsonable_python(
            {
                "answer": str(self),
                "text": self.text,
                "status": self.status,
                "reason": self.reason,
                "citations": self.citations,
                "run": str(self.run),
                "usage": self.usage,
            }
        )
        if self.form is not None:
            made["value"] = to_jsonable_python(self.value, fallback=str)
        return made
