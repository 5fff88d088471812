"""Habits that never end by themselves: the same call again and again, thinking without an end, broken calls."""

from __future__ import annotations

import json
from collections import Counter

from keyeloop.model_backend.base import Reply
from keyeloop.runtime.content import ToolCall

MAX_SAME_CALLS = 3
"""The call that makes it this many times the same, by name and arguments, is not made."""
MAX_FORMAT_ERRORS = 3
"""Replies in a row that hold nothing usable."""


class Guards:
    """Watches the replies of one run and says when to stop asking for more."""

    def __init__(self) -> None:
        self._calls: Counter[str] = Counter()
        self._format_errors = 0

    def repeated_call(self, call: ToolCall) -> str | None:
        """Count a call; the reason to stop when it is one too many of the same."""
        key = json.dumps([call.name, dict(call.arguments)], sort_keys=True, ensure_ascii=False, default=str)
        self._calls[key] += 1
        if self._calls[key] < MAX_SAME_CALLS:
            return None
        return f"{call.name} was asked for {MAX_SAME_CALLS} times with the same arguments"

    def pictures_left(self) -> None:
        """Pictures have left the context: to look again is no habit, and calls are counted anew."""
        self._calls.clear()

    def endless_thinking(self, reply: Reply) -> str | None:
        """The reason to stop when a reply is nothing but thinking that was cut at its length limit."""
        if reply.finish != "length" or reply.message.text.strip() or thinking_closed(reply):
            return None
        return f"the thinking was cut after {reply.usage.output_tokens} tokens without an answer"

    def format_errors(self, reply_usable: bool) -> str | None:
        """Count replies in a row with nothing usable; the reason to stop when it is one too many."""
        self._format_errors = 0 if reply_usable else self._format_errors + 1
        if self._format_errors < MAX_FORMAT_ERRORS:
            return None
        return f"{MAX_FORMAT_ERRORS} replies in a row could not be used"


def thinking_closed(reply: Reply) -> bool:
    """Whether the model itself ended its thinking; False where the backend kept no raw text to tell by."""
    return reply.message.raw is not None and "</think>" in reply.message.raw
