"""How the teacher speaks: a thought, then an answer or calls, in the words of the template."""

from __future__ import annotations

import json
import re

CLOCK = re.compile(r"\b(?:(\d+):)?(\d+):(\d\d)\b|\b(\d+) min (\d+) s")


def clock_thought(found: re.Match[str]) -> str:
    """A time written as a clock, worked out in seconds: ``1:23 = 60 + 23 = 83 s.``"""
    hours, minutes, rest = int(found[1] or 0), int(found[2] or found[4]), int(found[3] or found[5])
    parts = [str(hours * 3600)] * bool(hours) + [str(minutes * 60), str(rest)]
    return f"{found[0]} = {' + '.join(parts)} = {hours * 3600 + minutes * 60 + rest} s."


def number(value: float) -> int | float:
    """A whole number as one."""
    return int(value) if value == int(value) else value


def say(thought: str, text: str) -> str:
    """A turn that answers."""
    return f"{thought}\n</think>\n\n{text}"


def call(thought: str, *calls: tuple[str, dict[str, object]]) -> str:
    """A turn that calls tools."""
    blocks = [
        "<tool_call>\n" + json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False) + "\n</tool_call>"
        for name, arguments in calls
    ]
    return say(thought, "\n".join(blocks))
