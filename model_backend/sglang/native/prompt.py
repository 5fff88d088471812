"""Requests as token ids, ready to be sent: every piece of text is encoded, and written down as JSON, once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from keyeloop.model_backend.base import Request
from keyeloop.model_backend.keye.sizing import FACTOR
from keyeloop.model_backend.keye.template import Chunk, Picture, Spoken, render
from keyeloop.model_backend.keye.tokenizer import KeyeTokenizer
from keyeloop.model_backend.served.remembered import Remembered
from keyeloop.runtime.content import Image, MediaRef, Usage, Video
from keyeloop.runtime.errors import BackendError

KEPT_PIECES = 16_384
"""Pieces of text whose tokens are kept; the longest unused go first."""
KEPT_PROMPTS = 128
REMEMBERED_REPLIES = 1024


@dataclass(frozen=True)
class _Piece:
    ids: tuple[int, ...]
    written: bytes
    """``1,2,3``."""
    visual: bool = False


@dataclass(frozen=True)
class NativePrompt:
    """A request as the server's model reads it."""

    ids: tuple[int, ...]
    written: bytes
    """``ids`` as JSON, without brackets."""
    visual_tokens: int
    stills: tuple[MediaRef, ...]
    """In the order of the prompt, as ``clips``."""
    clips: tuple[Video, ...]

    @property
    def pictures(self) -> list[MediaRef]:
        """All of them, frames of clips included."""
        return [*self.stills, *(frame.media for clip in self.clips for frame in clip.frames)]

    @property
    def usage(self) -> Usage:
        """Exact input tokens, and how many of them are picture tokens."""
        return Usage(input_tokens=len(self.ids), visual_tokens=self.visual_tokens)


class NativePrompts:
    """Lays requests out. A reply goes back in the tokens that the model drew, so that a cached prefix holds beyond it.

    Threads may share it.
    """

    def __init__(self, tokenizer: KeyeTokenizer) -> None:
        self._tokenizer = tokenizer
        self._pieces: OrderedDict[object, _Piece] = OrderedDict()
        self._spoken: OrderedDict[str, _Piece] = OrderedDict()
        self._built: Remembered[NativePrompt] = Remembered(KEPT_PROMPTS)
        self._lock = threading.Lock()

    def remember(self, raw: str, ids: tuple[int, ...]) -> None:
        """Note the tokens of a reply, the end of its turn not included."""
        with self._lock:
            self._spoken[raw] = _Piece(ids, _written(ids))
            _hold(self._spoken, REMEMBERED_REPLIES)

    def build(self, request: Request) -> NativePrompt:
        """Lay a request out. Raises BackendError for a picture whose sides are no multiples of 28 pixels."""
        return self._built.get((*request.messages, request.tools), lambda: self._lay_out(request))

    def _lay_out(self, request: Request) -> NativePrompt:
        pieces = [self._piece(chunk) for chunk in render(request.messages, request.tools)]
        shown = [part for message in request.messages for part in message.parts if message.role != "system"]
        ids: list[int] = []
        for piece in pieces:
            ids += piece.ids
        return NativePrompt(
            ids=tuple(ids),
            written=b",".join(piece.written for piece in pieces if piece.written),
            visual_tokens=sum(len(piece.ids) for piece in pieces if piece.visual),
            stills=tuple(part.media for part in shown if isinstance(part, Image)),
            clips=tuple(part for part in shown if isinstance(part, Video)),
        )

    def _piece(self, chunk: Chunk) -> _Piece:
        if isinstance(chunk, Spoken) and chunk.text in self._spoken:
            return self._spoken[chunk.text]
        media = chunk.image.media if isinstance(chunk, Picture) else None
        key: object = chunk if media is None else (chunk.pad, media.width, media.height)  # type: ignore[union-attr]
        piece = self._pieces.get(key)
        if piece is None:
            if media is not None and (media.width % FACTOR or media.height % FACTOR or not media.width * media.height):
                raise BackendError(
                    f"a picture of {media.width}x{media.height} pixels cannot be laid out: sides must be multiples of "
                    f"{FACTOR}; resize it to what capabilities().cost.image(width, height) says"
                )
            ids = tuple(self._tokenizer.lay_out([chunk]).ids)
            piece = self._pieces[key] = _Piece(ids, _written(ids), media is not None)
            _hold(self._pieces, KEPT_PIECES)
        return piece


def _written(ids: tuple[int, ...]) -> bytes:
    return ",".join(map(str, ids)).encode()


def _hold(kept: OrderedDict[Any, Any], most: int) -> None:
    if len(kept) > most:
        kept.popitem(last=False)
