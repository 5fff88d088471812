"""Which calls are allowed, asked about or denied, by patterns of names and arguments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from keyeloop.runtime.content import ToolCall
from keyeloop.runtime.errors import ConfigError

Decision = Literal["allow", "ask", "deny"]
_PATTERN = re.compile(r"(?P<name>[^()=\s]+)(?:\((?P<arguments>.*)\))?", re.DOTALL)
_ARGUMENT = re.compile(r"\s*(?P<name>\w+)=(?P<glob>.*?)(?=,\s*\w+=|$)", re.DOTALL)


@dataclass(frozen=True)
class Rule:
    """One pattern and what it decides."""

    text: str
    """``delete_*``, or ``open_page(url=https://example.org/*)``."""
    name: str
    arguments: tuple[tuple[str, str], ...]
    decision: Decision

    @classmethod
    def read(cls, text: str, decision: str) -> Rule:
        """A rule from its pattern. Raises ConfigError for a pattern or a decision that cannot be read."""
        for known in get_args(Decision):
            if decision == known:
                break
        else:
            raise ConfigError(f"rule {text!r} says {decision!r}: write one of {', '.join(get_args(Decision))}")
        match = _PATTERN.fullmatch(text.strip())
        if match is None:
            raise ConfigError(f"{text!r} is no pattern of calls: write NAME or NAME(argument=pattern, ...), * for any")
        inside = match["arguments"] or ""
        arguments = tuple((found["name"], found["glob"].strip()) for found in _ARGUMENT.finditer(inside))
        if inside.strip() and not arguments:
            raise ConfigError(f"{text!r} has no argument=pattern between its brackets")
        return cls(text.strip(), match["name"], arguments, known)

    def fits(self, call: ToolCall) -> bool:
        """Whether it is about this call: the name fits, and every argument that it names is there and fits."""
        return fnmatchcase(call.name, self.name) and all(
            name in call.arguments and fnmatchcase(_shown(call.arguments[name]), glob) for name, glob in self.arguments
        )


class Rules:
    """Rules in their order: the first that fits a call decides; a call that none fits is asked about."""

    def __init__(self, rules: Mapping[str, str] | Iterable[tuple[str, str]]) -> None:
        pairs = rules.items() if isinstance(rules, Mapping) else rules
        self._rules = tuple(Rule.read(text, decision) for text, decision in pairs)

    def decide(self, call: ToolCall) -> tuple[Decision, str]:
        """What is decided, and by which rule."""
        for rule in self._rules:
            if rule.fits(call):
                return rule.decision, f"rule {rule.text!r}"
        return "ask", "no rule"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
