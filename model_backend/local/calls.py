"""Holds tool calls to their tool's JSON schema while they are decoded.

Between ``<tool_call>`` and ``</tool_call>`` only what this grammar allows can be drawn::

    \\n{"name": "<tool>", "arguments": <an object of that tool's schema>}\\n</tool_call>

Properties come in their declared order and separators are ``", "`` and ``": "``, as ``json.dumps`` writes them. The
masks are computed by the ``llguidance`` library, in some ten microseconds a token.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from keyeloop.model_backend.local.vocabulary import Vocabulary
from keyeloop.runtime.content import ToolSpec

Encode = Callable[[str], list[int]]
"""From text without special tokens to token ids."""
SEPARATORS = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}
LENIENT = {"lenient": True, "coerce_one_of": True}
KEPT_GRAMMARS = 16
LARGEST_NUMBER = 10**15
"""Bound, both ways, of a number whose schema sets none: no exponents, so nothing beyond a float can be drawn."""
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


class CallGrammar:
    """Compiles the grammar of a set of tools once and hands out constraints, one a call."""

    def __init__(self, vocabulary: Vocabulary, encode: Encode, end: int, call_close: int) -> None:
        """``end`` is the id of the token that ends a turn, ``call_close`` that of ``</tool_call>``.

        ``encode`` is the model's own tokenizer: where only one text can follow, it must be written in the tokens that
        the model knows it by, or the model is led off what it was trained on.
        """
        self._tokenizer = LLTokenizer(TokenizerWrapper(_Alphabet(vocabulary, encode, end)))
        self._call_close = call_close
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()

    def begin(self, tools: Sequence[ToolSpec]) -> CallConstraint:
        """A constraint for one call of one of ``tools``, at the place just after ``<tool_call>``."""
        key = json.dumps([[tool.name, tool.parameters] for tool in tools])
        if key not in self._compiled:
            self._compiled[key] = self._compile(tools)
            if len(self._compiled) > KEPT_GRAMMARS:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(key)
        return CallConstraint(self._compiled[key].deep_copy())

    def _compile(self, tools: Sequence[ToolSpec]) -> LLMatcher:
        schemas = [self._workable(tool.parameters) for tool in tools]
        calls = [
            f'call{index}: {json.dumps(json.dumps(tool.name)[1:])} ", \\"arguments\\": " %json {json.dumps(schema)}'
            for index, (tool, schema) in enumerate(zip(tools, schemas, strict=True))
        ]
        names = " | ".join(f"call{index}" for index in range(len(calls)))
        start = f'start: "\\n{{\\"name\\": \\"" call "}}\\n" <[{self._call_close}]>\ncall: {names}'
        return self._matcher("\n".join([start, *calls]))

    def _workable(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The schema as far as the grammar can hold it: whole, without unknown keywords, or as any object."""
        closed = {**_close_objects(parameters), "type": "object"}
        for schema in (closed | {"x-guidance": SEPARATORS}, closed | {"x-guidance": SEPARATORS | LENIENT}):
            if not self._matcher(f"start: %json {json.dumps(schema)}").is_error():
                return schema
        return {"type": "object", "x-guidance": SEPARATORS}

    def _matcher(self, lark: str) -> LLMatcher:
        return LLMatcher(self._tokenizer, LLMatcher.grammar_from_lark(lark), log_level=0)


class CallConstraint:
    """The state of one call that is being decoded."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    @property
    def done(self) -> bool:
        """Whether the call is complete, closing tag included, or the grammar could not follow it any further."""
        return bool(self._matcher.is_stopped())

    def allowed(self, size: int) -> torch.Tensor:
        """Which of ``size`` token ids may come next: a boolean tensor on the CPU."""
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), bitorder="little")
        mask = np.zeros(size, np.bool_)
        count = min(size, len(bits))
        mask[:count] = bits[:count]
        return torch.from_numpy(mask)

    def consume(self, token: int) -> None:
        """Go on past ``token``."""
        self._matcher.consume_token(token)


class _Alphabet:
    """A vocabulary in the shape that ``llguidance.TokenizerWrapper`` reads."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary, encode: Encode, end: int) -> None:
        self._encode = encode
        self.eos_token_id = end
        self.tokens = list(vocabulary.tokens)
        self.special_token_ids = sorted(vocabulary.special)
        self._ids = {token: index for index, token in enumerate(self.tokens) if len(token) == 1}

    def __call__(self, text: str | bytes) -> list[int]:
        data = text.encode() if isinstance(text, str) else text
        try:
            return self._encode(data.decode())
        except UnicodeDecodeError:
            return [self._ids[data[at : at + 1]] for at in range(len(data)) if data[at : at + 1] in self._ids]


def _close_objects(schema: Any) -> Any:
    """Forbid undeclared properties wherever some are declared and the schema leaves others open; bound open numbers."""
    if not isinstance(schema, Mapping):
        return schema
    closed = dict(schema)
    if closed.get("type") in ("number", "integer") and not any(bound in closed for bound in BOUNDS):
        closed |= {"minimum": -LARGEST_NUMBER, "maximum": LARGEST_NUMBER}
    for key in {"properties", "patternProperties", "$defs", "definitions"} & schema.keys():
        if isinstance(schema[key], Mapping):
            closed[key] = {name: _close_objects(inner) for name, inner in schema[key].items()}
    for key in {"items", "additionalProperties"} & schema.keys():
        closed[key] = _close_objects(schema[key])
    for key in {"anyOf", "oneOf", "prefixItems"} & schema.keys():
        if isinstance(schema[key], list | tuple):
            closed[key] = [_close_objects(inner) for inner in schema[key]]
    if isinstance(schema.get("properties"), Mapping) and "allOf" not in schema:
        closed.setdefault("additionalProperties", False)
    return closed
