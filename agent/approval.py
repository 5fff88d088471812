"""Asking at the terminal whether a call may be made."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from keyeloop.agent.wording import call_words
from keyeloop.runtime.content import ToolCall
from keyeloop.runtime.errors import ConfigError
from keyeloop.tools.toolset import Toolset

QUESTION = "allow it? [y]es, [n]o, [a]lways this tool, or why not: "
NOBODY = "it has to be allowed by a person, and there is no terminal to ask at"


class TerminalApproval:
    """Asks on stderr, reads from stdin; what was always allowed is not asked again."""

    def __init__(self, pause: Callable[[], AbstractContextManager[object]] = nullcontext) -> None:
        self.pause = pause
        """Holds still what else is drawn in the terminal while a question stands there."""
        self._always: set[str] = set()

    def __call__(self, call: ToolCall) -> bool | str:
        """Whether the call is allowed, or why not."""
        if call.name in self._always:
            return True
        if not sys.stdin.isatty():
            return NOBODY
        with self.pause():
            print(f"\n   ? {call_words(call, None)}\n     {QUESTION}", end="", file=sys.stderr, flush=True)
            line = sys.stdin.readline()
        answer = line.strip()
        if answer.lower() in ("a", "always"):
            self._always.add(call.name)
        if answer.lower() in ("y", "yes", "a", "always"):
            return True
        return "" if answer.lower() in ("", "n", "no") else answer


def read_rules(given: Sequence[str]) -> list[tuple[str, str]]:
    """Rules as the command line has them, ``PATTERN=DECISION``. Raises ConfigError for one without a decision."""
    rules = []
    for text in given:
        pattern, sign, decision = text.rpartition("=")
        if not sign or not pattern:
            raise ConfigError(f"rule {text!r} is not PATTERN=DECISION: write python=ask, or '*=allow'")
        rules.append((pattern, decision))
    return rules


def guarded(tools: Toolset, given: Sequence[str], ask: TerminalApproval) -> Toolset:
    """The tools under the rules of a command line; without rules, as they are."""
    return tools.approved(read_rules(given), ask) if given else tools
