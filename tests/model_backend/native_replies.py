"""Replies as SGLang's ``/generate`` streams them, in keye-tiny's tokens, and what such a server says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from keyeloop.model_backend.keye.tokenizer import KeyeTokenizer
from keyeloop.model_backend.local.folder import model_folder
from tests.model_backend.loopback_server import Json, LoopbackServer, Play, Player, event, loopback

FOLDER = model_folder("keye-tiny")
TOKENIZER = KeyeTokenizer(FOLDER / "tokenizer.json")
END = TOKENIZER.id_of("<|im_end|>")


def spoken(text: str) -> list[int]:
    """The tokens of a reply, with the one that ends it."""
    return [*TOKENIZER.encode(text, special=True), END]


def logprob(place: int) -> float:
    """Of the reply's token at ``place``, in every reply of these servers."""
    return -(place + 1) / 64


def part(ids: Sequence[int], start: int, done: int, prompt: int, finish: Json | None = None, cached: int = 0) -> Json:
    """One event: tokens ``start`` to ``done`` of a reply to ``prompt`` tokens."""
    meta: Json = {
        "id": "r",
        "finish_reason": finish,
        "prompt_tokens": prompt,
        "completion_tokens": done,
        "cached_tokens": cached,
        "output_token_logprobs": [[logprob(place), ids[place], None] for place in range(start, done)],
    }
    return {"text": "", "output_ids": list(ids[start:done]), "meta_info": meta}


def events(
    ids: Sequence[int], prompt: int, *, new_only: bool = False, step: int = 3, kind: str = "stop", cached: int = 0
) -> list[bytes]:
    """A whole stream; ``new_only`` as with ``--incremental-streaming-output``."""
    ends = [*range(step, len(ids), step), len(ids)]
    starts = [0, *ends[:-1]] if new_only else [0] * len(ends)
    finishes: list[Json | None] = [None] * (len(ends) - 1)
    finishes.append({"type": kind, "matched": END} if kind == "stop" else {"type": kind, "length": len(ids)})
    made = [
        event(part(ids, start, done, prompt, finish, cached))
        for start, done, finish in zip(starts, ends, finishes, strict=True)
    ]
    return [*made, event("[DONE]")]


def generated(text: str, prompt: int, **how: Any) -> Play:
    """A whole good reply."""
    return Play(pieces=tuple(events(spoken(text), prompt, **how)))


@contextmanager
def native_server(player: Player, status: Mapping[str, Any] | None = None, **info: Any) -> Iterator[LoopbackServer]:
    """A server of keye-tiny; ``status`` is what the plugin says, ``info`` what ``/server_info`` says besides."""
    with loopback(player) as server:
        server.pages["/model_info"] = {
            "model_path": str(FOLDER),
            "tokenizer_path": str(FOLDER),
            "architectures": ["KeyeVL2MoeForConditionalGeneration"],
        }
        states = [] if status is None else [{"keyeloop": dict(status)}]
        server.pages["/server_info"] = {"context_length": 8192, "internal_states": states, **info}
        yield server
