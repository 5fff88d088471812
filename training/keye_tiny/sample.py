"""What the trainer eats: token ids, which of them are learned, positions, and the pictures to render."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from keyeloop.model_backend.keye.template import Chunk, Joined, Markup, Picture, Spoken, render
from keyeloop.model_backend.keye.tokenizer import PIXELS_PER_TOKEN, KeyeTokenizer
from keyeloop.runtime.content import Message, ToolSpec
from keyeloop.runtime.evidence import Region
from keyeloop.tools.demo_video.scene import Scene

TOKENIZER = Path(__file__).parents[2] / "model_backend" / "keye_tiny" / "tokenizer.json"

BOX = re.compile(r"(?<=[ \[])\d+, ?\d+, ?\d+, ?\d+(?=\])")
"""The four sides of a cited or zoomed box."""
DECISIONS = re.compile(
    r"(?<=Look at )[\d.]+|(?<= s and )[\d.]+(?= s\.)|(?<=Not at )[\d.]+|(?<= s, at )[\d.]+(?= s\.)"
    r"|(?<=\d )[-+*](?= -?\d+\))|\A.|(?<=</think>\n\n).",
    re.S,
)
"""The moments of a thought, the operator of a one-line sum, and how thought and speech begin: think, call or answer."""


class Kind(IntEnum):
    """What a token is to the loss."""

    NONE = 0
    PLAIN = 1
    READING = 2
    """Part of what a picture says, where it is said first."""
    BOX = 3
    DECISION = 4
    """A moment to look at, the operator of a sum, whether to call or to answer: it must follow from the question."""


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
    loss_kind: npt.NDArray[np.uint8]
    """[L], a :class:`Kind`: not ``NONE`` where the token is the assistant's own."""
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
    family: str,
    messages: Sequence[Message],
    tools: Sequence[ToolSpec],
    shown: dict[str, Shown],
    *,
    open_reply: bool,
    readings: Sequence[str] = (),
) -> Sample:
    """Render messages as the local engine does; ``shown`` holds the picture of every view by handle.

    ``readings`` are texts that pictures show; each counts as a reading where it is first said after a picture.
    """
    ids: list[int] = []
    kinds: list[int] = []
    pictures: list[Placing] = []
    unread = list(readings)
    after_reply = False
    for chunk in render(messages, tools, open_reply=open_reply):
        piece, tokens = _tokens(chunk)
        if isinstance(chunk, Picture):
            view = chunk.image.view
            assert view is not None
            pictures.append(Placing(shown[view.handle], len(ids), tokens))
        ids.extend(piece)
        if isinstance(chunk, Spoken):
            kinds.extend(_kinds(chunk.text, unread if pictures else []))
        else:
            kinds.extend([Kind.NONE] * len(piece))
        if after_reply:
            kinds[-len(piece)] = Kind.PLAIN  # the end token closes a reply
        after_reply = isinstance(chunk, Spoken)
    return Sample(
        family, np.array(ids, np.int32), np.array(kinds, np.uint8), positions(len(ids), pictures), tuple(pictures)
    )


def _kinds(text: str, unread: list[str]) -> list[int]:
    """The kind of every token of what the assistant says; what is read here is taken from ``unread``."""
    spans = [(found.span(), Kind.BOX) for found in BOX.finditer(text)]
    spans += [(found.span(), Kind.DECISION) for found in DECISIONS.finditer(text)]
    after = 0
    for reading in tuple(unread):
        found = re.compile(rf"(?<!\w){re.escape(reading)}(?!\w)").search(text, after)
        if found:
            spans.append((found.span(), Kind.READING))
            unread.remove(reading)
            after = found.end()
    kinds = [Kind.PLAIN] * len(text)
    for (start, stop), kind in spans:
        kinds[start:stop] = [kind] * (stop - start)
    return [
        kinds[start] if stop - start == 1 or kinds[start] == Kind.DECISION else Kind.PLAIN
        for start, stop in _offsets().encode(text).offsets
    ]


@lru_cache(maxsize=1)
def _offsets() -> Tokenizer:
    return Tokenizer.from_file(str(TOKENIZER))


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
    if isinstance(chunk, Joined):  # without merges each piece is cut as if it stood alone
        return [token for piece in chunk.pieces for token in encode(piece.text, isinstance(piece, Markup))], 0
    return encode(chunk.text, isinstance(chunk, Markup)), 0


def media_of(shown: Shown) -> dict[str, Any]:
    """Fields of a media reference for a picture that exists only as a recipe."""
    return {"sha256": "", "mime": "image/jpeg", "size_bytes": 0, "width": shown.width, "height": shown.height}
