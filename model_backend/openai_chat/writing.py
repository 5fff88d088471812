"""Whole requests as JSON. A turn and a tool are written once, however often they are sent."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from keyeloop.model_backend.base import Request
from keyeloop.model_backend.openai_chat.messages import (
    Form,
    Names,
    Turn,
    conversation,
    tool_form,
    turn_of,
    written,
)
from keyeloop.model_backend.sglang.wire import RAW_REPLIES
from keyeloop.runtime.content import Message, ToolSpec
from keyeloop.runtime.media import MediaStore

KEPT_BYTES = 512 << 20
"""Of turns and tools that are kept; the longest unused go first."""


class RequestWriter:
    """Writes the requests of one client. Threads may share it."""

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self.written = 0
        """How many turns and tools were written."""
        self._kept_bytes, self._held_bytes = kept_bytes, 0
        self._kept: OrderedDict[tuple[int, Form | None], tuple[Message | ToolSpec, Turn]] = OrderedDict()
        self._lock = threading.Lock()

    def body(
        self, request: Request, model: str, form: Form, names: Names, media: MediaStore, *, keep: bool = True
    ) -> bytes:
        """A request as JSON, to be streamed back with its usage. Without ``keep`` its turns will not come again.

        Raises what ``media`` does for a picture that is missing or was changed.
        """
        sampling = request.sampling
        told: dict[str, Any] = {
            "model": model,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if sampling.top_k:
            told["top_k"] = sampling.top_k
        if sampling.seed is not None:
            told["seed"] = sampling.seed
        if form.own:
            told["chat_template_kwargs"] = {RAW_REPLIES: True}
        if request.tools:
            told["tool_choice"] = "auto" if request.allow_calls else "none"
        turns = [self._turn(message, form, names, media, keep) for message in request.messages]
        pieces = [written(told)[:-1], b',"messages":[', *_joined(conversation(turns, form)), b"]"]
        if request.tools:
            pieces += [b',"tools":[', *_joined([self._tool(tool, keep) for tool in request.tools]), b"]"]
        return b"".join((*pieces, b"}"))

    def clear(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._kept.clear()
            self._held_bytes = 0

    def _turn(self, message: Message, form: Form, names: Names, media: MediaStore, keep: bool) -> Turn:
        found = self._found(message, form)
        return found or self._put(message, form, turn_of(message, form, names, media), keep)

    def _tool(self, tool: ToolSpec, keep: bool) -> Turn:
        return self._found(tool, None) or self._put(tool, None, Turn("", (written(tool_form(tool)),)), keep)

    def _found(self, what: Message | ToolSpec, form: Form | None) -> Turn | None:
        with self._lock:
            found = self._kept.get((id(what), form))
            if found is not None:
                self._kept.move_to_end((id(what), form))
            return None if found is None else found[1]

    def _put(self, what: Message | ToolSpec, form: Form | None, turn: Turn, keep: bool) -> Turn:
        """Hold the object beside what was written of it, so that no other gets its id."""
        with self._lock:
            self.written += 1
            if keep and (id(what), form) not in self._kept:
                self._kept[id(what), form] = what, turn
                self._held_bytes += _size(turn)
                while self._held_bytes > self._kept_bytes and len(self._kept) > 1:
                    self._held_bytes -= _size(self._kept.popitem(last=False)[1][1])
        return turn


def _joined(turns: list[Turn]) -> list[bytes]:
    return [piece for turn in turns for piece in (b",", *turn.pieces)][1:]


def _size(turn: Turn) -> int:
    return sum(map(len, turn.pieces))
