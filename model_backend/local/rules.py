"""Which token may come next in a reply: free text, or a tool call held to its schema."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from keyeloop.model_backend.local.calls import CallConstraint, CallGrammar, Encode
from keyeloop.model_backend.local.vocabulary import Vocabulary
from keyeloop.model_backend.toolcalls import CALL_CLOSE, CALL_OPEN, THINK_CLOSE
from keyeloop.runtime.content import ToolSpec

TURN_END = "<|im_end|>"


@dataclass(frozen=True)
class Structure:
    """Ids of the tokens that give a reply its structure."""

    turn_end: int
    think_close: int
    call_open: int
    call_close: int

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> Structure:
        """Find them by name. Raises ValueError for a vocabulary without them."""
        names = (TURN_END, THINK_CLOSE, CALL_OPEN, CALL_CLOSE)
        return cls(*(vocabulary.tokens.index(name.encode()) for name in names))


class RuleBook:
    """What all replies have in common: built once for a model, begun anew for every reply."""

    def __init__(self, vocabulary: Vocabulary, encode: Encode, size: int) -> None:
        """``encode`` is the model's tokenizer; ``size``, the number of logits, may exceed the vocabulary.

        Raises ValueError as Structure does.
        """
        self.vocabulary, self.structure = vocabulary, Structure.of(vocabulary)
        self.grammar = CallGrammar(vocabulary, encode, self.structure.turn_end, self.structure.call_close)
        self.names = [vocabulary.tokens[index] for index in sorted(vocabulary.special)]
        self.endings = {name[-1] for name in self.names}
        self.reach = max(map(len, self.names)) - 1
        text = torch.zeros(size, dtype=torch.bool)
        usable = [index for index, token in enumerate(vocabulary.tokens[:size]) if token]
        text[usable] = True
        text[sorted(vocabulary.special)] = False
        text[self.structure.turn_end] = True
        self.answering, self.thinking, self.speaking = text, text.clone(), text.clone()
        self.thinking[self.structure.think_close] = True
        self.speaking[self.structure.call_open] = True

    def begin(self, tools: Sequence[ToolSpec]) -> ReplyRules:
        """Rules for a reply that may call ``tools``; with none it can only be an answer."""
        return ReplyRules(self, tools)


class ReplyRules:
    """Follows one reply and says what may come next.

    Thinking ends with ``</think>`` or with the turn. After it a call may begin, if calls are allowed; inside a call its
    grammar rules. Elsewhere structural tokens cannot be drawn, nor spelled out in ordinary ones.
    """

    def __init__(self, book: RuleBook, tools: Sequence[ToolSpec]) -> None:
        self._book, self._tools = book, tools
        self._closed = False
        self._tail = b""
        self._call: CallConstraint | None = None

    @property
    def thinking(self) -> bool:
        """Whether the reply is still in its thinking."""
        return not self._closed

    def allowed(self) -> torch.Tensor:
        """Which ids may come next, as a boolean tensor on the CPU that is only lent."""
        if not self._closed:
            return self._book.thinking
        if self._call is not None:
            mask = self._call.allowed(self._book.speaking.numel())
            if mask.any():
                return mask
            self._call = None
        return self._book.speaking if self._tools else self._book.answering

    def spells_structure(self, token: int) -> bool:
        """Whether ``token`` would complete the name of a special token in ordinary characters, outside a call."""
        if self._call is not None or token in self._book.vocabulary.special:
            return False
        new = self._book.vocabulary.tokens[token]
        if self._book.endings.isdisjoint(new):
            return False
        text, before = self._tail + new, len(self._tail)
        return any(text.find(name, max(0, before - len(name) + 1)) >= 0 for name in self._book.names)

    def consume(self, token: int) -> None:
        """Go on past ``token``, which was allowed."""
        structure = self._book.structure
        if self._call is not None:
            self._call.consume(token)
            if self._call.done:
                self._call, self._tail = None, b""
        elif token == structure.call_open:
            self._call = self._book.grammar.begin(self._tools)
        elif token == structure.think_close:
            self._closed, self._tail = True, b""
        else:
            self._tail = (self._tail + self._book.vocabulary.tokens[token])[-self._book.reach :]
