"""The context of a question that is played again: cut where it was cut, whatever is counted now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from keyeloop.agent.context import KEPT_SHARE, Context, Edit
from keyeloop.agent.replaying.tape import Tape
from keyeloop.model_backend.base import ModelBackend, Sampling
from keyeloop.runtime.content import Message, Text, ToolSpec
from keyeloop.runtime.events import ContextEdited, Noticed, RequestSent


class TapedContext(Context):
    """Edits itself as recorded; where the record ends within a batch of edits, the batch is finished."""

    def __init__(
        self,
        tape: Tape,
        backend: ModelBackend,
        tools: Sequence[ToolSpec],
        sampling: Sampling,
        opening: Sequence[Message],
    ) -> None:
        super().__init__(backend, tools, sampling, opening)
        self._tape = tape

    def fit(self) -> tuple[Edit, ...]:
        if not self._tape.left:
            return super().fit()
        room = self._room - self._sampling.max_tokens
        return self._again(int(room * KEPT_SHARE), room)

    def halve(self) -> tuple[Edit, ...]:
        if not self._tape.left:
            return super().halve()
        count = self._count()
        return self._again(count // 2, count - 1)

    def left_tokens(self) -> int:
        if not self._tape.left:
            return super().left_tokens()
        upcoming = self._tape.upcoming
        return -1 if isinstance(upcoming, Noticed) and upcoming.code == "context" else 0

    def has_room(self) -> bool:
        return isinstance(self._tape.upcoming, RequestSent) if self._tape.left else super().has_room()

    def _again(self, keep: int, needed: int) -> tuple[Edit, ...]:
        recorded = self._tape.edits()
        edits = tuple(self._repeat(edit) for edit in recorded)
        if recorded and self._tape.ends_with(recorded) and self._count() > keep:
            edits += self._free(keep, needed)
        return edits

    def _repeat(self, edit: ContextEdited) -> Edit:
        message, before = self.messages[edit.message], self._size()
        parts = (*message.parts[: edit.part], Text(edit.stub), *message.parts[edit.part + 1 :])
        self.messages[edit.message] = replace(message, parts=parts)
        self._counted = None
        visual = before.visual_tokens - self._size().visual_tokens
        return Edit(edit.message, edit.part, edit.evicted, edit.stub, edit.freed_tokens, visual)
