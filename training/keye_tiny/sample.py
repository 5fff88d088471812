"""What the trainer eats: token ids, which of them are learned, positions, and the pictures to render."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keyeloop.model_backend.keye.template import Chunk, Markup, Picture, Plain, Spoken, render
from keyeloop.model_backend.keye.tokenizer import PIXELS_PER_TOKEN, KeyeTokenizer
from keyeloop.runtime.content import Message, ToolSpec
from keyeloop.runtime.evidence import Region
from keyeloop.tools.demo_video.scene import Scene

TOKENIZER = Path(__file__).parents[2] / "model_backend" / "keye_tiny" / "tokenizer.json"


@dataclass(frozen=True)
class Shown:
    """How to make one picture: a region of a scene at a pixel size."""

    scene: Scene
    region: Region
    width: int
    height: int


@dataclass(frozen=True)
class Placing:
    """A picture and the place of its tokens."""

    shown: Shown
    start: int
    tokens: int


@dataclass(frozen=True)
class Sample:
    """One training sequence of length L."""

    family: str
    ids: npt.NDArray[np.int32]
    """[L]"""
    loss_mask: npt.NDArray[np.bool_]
    """[L], true where the token is the assistant's own."""
    positions: npt.NDArray[np.int32]
    """[3, L]: time, height and width."""
    pictures: tuple[Placing, ...]


@lru_cache(maxsize=1)
def tokenizer() -> KeyeTokenizer:
    """keye-tiny's tokenizer, read once a process."""
    return KeyeTokenizer(TOKENIZER)


@lru_cache(maxsize=4096)
def encode(text: str, special: bool) -> tuple[int, ...]:
    """Token ids of a piece of text; common pieces come from the cache."""
    return tuple(tokenizer().encode(text, special=special))


def lay_out(
    family: str, messages: Sequence[Message], tools: Sequence[ToolSpec], shown: dict[str, Shown], *, open_reply: bool
) -> Sample:
    """Render messages as the local engine does; ``shown`` holds the picture of every view by handle."""
    ids: list[int] = []
    learned: list[bool] = []
    pictures: list[Placing] = []
    after_reply = False
    for chunk in render(messages, tools, open_reply=open_reply):
        piece, tokens = _tokens(chunk)
        if isinstance(chunk, Picture):
            view = chunk.image.view
            assert view is not None
            pictures.append(Placing(shown[view.handle], len(ids), tokens))
        ids.extend(piece)
        learned.extend([isinstance(chunk, Spoken)] * len(piece))
        if after_reply:
            learned[-len(piece)] = True  # the end token closes a reply
        after_reply = isinstance(chunk, Spoken)
    return Sample(
        family, np.array(ids, np.int32), np.array(learned, bool), positions(len(ids), pictures), tuple(pictures)
    )


def positions(length: int, pictures: Sequence[Placing]) -> npt.NDArray[np.int32]:
    """Three position rows [3, length]: text counts up; a picture stands at one time and spans its grid."""
    rows = np.zeros((3, length), np.int32)
    at, following = 0, 0
    for picture in pictures:
        text = picture.start - at
        rows[:, at : picture.start] = following + np.arange(text)
        begin = following + text
        high, wide = picture.shown.height // 28, picture.shown.width // 28
        span = slice(picture.start, picture.start + picture.tokens)
        rows[0, span] = begin
        rows[1, span] = begin + np.repeat(np.arange(high), wide)
        rows[2, span] = begin + np.tile(np.arange(wide), high)
        at, following = picture.start + picture.tokens, begin + max(high, wide)
    rows[:, at:] = following + np.arange(length - at)
    return rows


def _tokens(chunk: Chunk) -> tuple[Sequence[int], int]:
    if isinstance(chunk, Picture):
        count = chunk.image.media.width * chunk.image.media.height // PIXELS_PER_TOKEN
        return [tokenizer().id_of(chunk.pad)] * count, count
    if isinstance(chunk, Spoken):
        return tokenizer().encode(chunk.text, special=True), 0
    assert isinstance(chunk, (Markup, Plain))
    return encode(chunk.text, isinstance(chunk, Markup)), 0


def media_of(shown: Shown) -> dict[str, Any]:
    """Fields of a media reference for a picture that exists only as a recipe."""
    return {"sha256": "", "mime": "image/jpeg", "size_bytes": 0, "width": shown.width, "height": shown.height}
