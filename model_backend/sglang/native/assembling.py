"""A reply put together from what SGLang's ``/generate`` streams: token ids, all of them so far or only the new ones."""

from __future__ import annotations

import codecs
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from keyeloop.model_backend.base import Delta, Reply
from keyeloop.model_backend.keye.template import END
from keyeloop.model_backend.keye.tokenizer import KeyeTokenizer
from keyeloop.model_backend.local.vocabulary import Vocabulary
from keyeloop.model_backend.served.failures import RETRIED, refusal
from keyeloop.model_backend.sglang.native.prompt import NativePrompt
from keyeloop.model_backend.toolcalls import CALL_OPEN, THINK_CLOSE, StreamParser, parse_reply
from keyeloop.runtime.content import Message, Text, ToolCall, TurnTokens, Usage
from keyeloop.runtime.errors import BackendError

KIND = "SGLang server"


@dataclass(frozen=True)
class Words:
    """What a model's tokens say, and those that a reply is read by."""

    vocabulary: Vocabulary
    end: int
    """Ends a turn."""
    think_close: int
    call_open: int

    @staticmethod
    def of(tokenizer: KeyeTokenizer, vocabulary: Vocabulary) -> Words:
        """CheckpointError where the tokenizer lacks one of them."""
        return Words(vocabulary, *map(tokenizer.id_of, (END, THINK_CLOSE, CALL_OPEN)))


class NativeAssembly:
    """Collects one reply to ``prompt``."""

    def __init__(
        self,
        where: str,
        started: float,
        prompt: NativePrompt,
        words: Words,
        on_delta: Callable[[Delta], None] | None,
    ) -> None:
        self._where, self._started, self._prompt, self._words = where, started, prompt, words
        self._on_delta = on_delta
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace")
        self._parser = StreamParser()
        self._text: list[str] = []
        self._ids: list[int] = []
        self._logprobs: list[float] = []
        self._meta: Mapping[str, Any] = {}
        self._finish: str | None = None
        self._first_token_s: float | None = None

    @property
    def began(self) -> bool:
        """Whether a token has come: from then on the request is never sent again."""
        return bool(self._ids)

    @property
    def complete(self) -> bool:
        """Whether the server has said how the reply ended."""
        return self._finish is not None

    def take(self, data: str) -> None:
        """Take one event. BackendError for what SGLang does not send, and where it laid the prompt out differently."""
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError):
            raise BackendError(f"{self._where} sent what is not JSON: {data[:80]!r}; is it an {KIND}?") from None
        if not isinstance(chunk, dict):
            raise self._strange(data)
        if chunk.get("error"):
            self._fail(chunk["error"])
        meta, ids = chunk.get("meta_info"), chunk.get("output_ids")
        if not isinstance(meta, dict) or not (ids is None or _whole_numbers(ids)):
            raise self._strange(data)
        finish = meta.get("finish_reason")
        kind = finish.get("type") if isinstance(finish, dict) else finish
        if kind == "abort":
            self._fail(finish)
        self._check_prompt(meta)
        self._extend(ids or [], meta, data)
        self._meta = meta
        if isinstance(kind, str):
            self._finish = kind

    def reply(self) -> Reply:
        """The finished reply."""
        self._say(b"", final=True)
        for delta in self._parser.finish():
            self._show(delta)
        raw = "".join(self._text)
        cut = self._finish == "length"
        parsed = parse_reply(raw, cut=cut)
        message = Message(
            "assistant",
            (Text(parsed.text),) if parsed.text else (),
            reasoning=parsed.reasoning,
            tool_calls=tuple(
                ToolCall(f"call-{number}", call.name, call.arguments) for number, call in enumerate(parsed.calls, 1)
            ),
            raw=raw,
        )
        finish: Literal["stop", "tool_calls", "length"] = "length" if cut else "tool_calls" if parsed.calls else "stop"
        tokens = TurnTokens(self._prompt.ids, tuple(self._ids), tuple(self._logprobs))
        return Reply(
            message, self._usage(bool(parsed.reasoning)), finish, parsed.malformed, self._first_token_s, tokens
        )

    @property
    def spoken(self) -> tuple[str, tuple[int, ...]]:
        """The reply's text and its tokens, the end of the turn not included."""
        ids = self._ids[:-1] if self._ids and self._ids[-1] == self._words.end else self._ids
        return "".join(self._text), tuple(ids)

    def _extend(self, ids: list[int], meta: Mapping[str, Any], data: str) -> None:
        """Take what is new of ``ids``, which are all so far where there are as many as the server has counted."""
        known, counted = len(self._ids), meta.get("completion_tokens")
        whole = len(ids) == counted if isinstance(counted, int) else len(ids) >= known
        new = ids[known:] if whole else ids
        if whole and ids[:known] != self._ids:
            raise self._strange(data)
        self._take_logprobs(meta.get("output_token_logprobs"), whole, data)
        if new and self._first_token_s is None:
            self._first_token_s = time.monotonic() - self._started
        self._ids += new
        for token in new:
            if token != self._words.end:
                self._say(self._meaning(token))

    def _take_logprobs(self, told: Any, whole: bool, data: str) -> None:
        if told is None:
            return
        try:
            found = [float(entry[0]) for entry in told]
        except (TypeError, ValueError, IndexError, KeyError):
            raise self._strange(data) from None
        self._logprobs = found if whole else self._logprobs + found

    def _meaning(self, token: int) -> bytes:
        tokens = self._words.vocabulary.tokens
        if not 0 <= token < len(tokens):
            raise BackendError(
                f"{self._where} drew token {token}, the tokenizer has {len(tokens)}: name the folder of the checkpoint "
                "that it serves, as sglang://host:port#FOLDER"
            )
        return tokens[token]

    def _say(self, data: bytes, final: bool = False) -> None:
        text = self._bytes.decode(data, final)
        if text:
            self._text.append(text)
            if self._on_delta is None:
                return
            for delta in self._parser.feed(text):
                self._show(delta)

    def _show(self, delta: Delta) -> None:
        if self._on_delta is not None:
            self._on_delta(delta)

    def _check_prompt(self, meta: Mapping[str, Any]) -> None:
        counted, sent = meta.get("prompt_tokens"), len(self._prompt.ids)
        if isinstance(counted, int) and counted != sent:
            raise BackendError(
                f"{self._where} read {counted} tokens where {sent} were sent: it lays pictures out in its own way. "
                "Start it with keyeloop serve, or ask it as http://host:port/v1"
            )

    def _fail(self, error: Any) -> None:
        """Raise what an error in the stream means; before the first token it may pass."""
        code = error.get("code") or error.get("status_code") if isinstance(error, dict) else None
        status = code if isinstance(code, int) else 500
        if self.began:
            told = refusal(self._where, status, json.dumps(error), {}, ())
            raise BackendError(f"{told}; the reply had begun, so it was not asked again")
        raise refusal(self._where, status, json.dumps(error), {}, RETRIED)

    def _strange(self, data: str) -> BackendError:
        return BackendError(f"{self._where} sent {data[:80]!r} where a reply was due; is it an {KIND}?")

    def _usage(self, thought: bool) -> Usage:
        ids, close = self._ids, self._words.think_close
        counted, cached = self._meta.get("completion_tokens"), self._meta.get("cached_tokens")
        prompt = self._prompt.usage
        return Usage(
            input_tokens=prompt.input_tokens,
            cached_tokens=min(prompt.input_tokens, cached) if isinstance(cached, int) else 0,
            visual_tokens=prompt.visual_tokens,
            output_tokens=counted if isinstance(counted, int) else len(ids),
            reasoning_tokens=(ids.index(close) if close in ids else len(ids)) if thought else 0,
        )


def _whole_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, int) and not isinstance(item, bool) for item in value)
