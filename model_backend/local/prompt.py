"""Requests to token ids and picture places, with the replies of this process in the very tokens they were made of."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from keyeloop.model_backend.base import Request
from keyeloop.model_backend.keye.sizing import FACTOR
from keyeloop.model_backend.keye.template import Spoken, render
from keyeloop.model_backend.keye.tokenizer import KeyeTokenizer, Placed
from keyeloop.runtime.content import Usage
from keyeloop.runtime.errors import BackendError

REMEMBERED_REPLIES = 256

Key = int | tuple[str, int, int]
"""What decides a place of a sequence: a token id, or (sha256 of a picture, its pad id, index in it)."""


@dataclass(frozen=True)
class Prompt:
    """A request as the model sees it. ``keys`` has one entry a token; equal keys up to a place mean an equal prefix."""

    ids: list[int]
    pictures: list[Placed]
    keys: list[Key]

    @property
    def usage(self) -> Usage:
        """Exact input tokens, and how many of them are picture tokens."""
        return Usage(input_tokens=len(self.ids), visual_tokens=sum(placed.tokens for placed in self.pictures))


class PromptBuilder:
    """Renders requests and encodes them.

    The same text can be written in several ways in tokens. A reply goes back into the next request in the tokens that
    the model drew, so that the cached prefix holds beyond it.
    """

    def __init__(self, tokenizer: KeyeTokenizer) -> None:
        self._tokenizer = tokenizer
        self._spoken: OrderedDict[str, tuple[int, ...]] = OrderedDict()

    def remember(self, raw: str, ids: tuple[int, ...]) -> None:
        """Note the tokens of a reply that this engine has produced."""
        self._spoken[raw] = ids
        self._spoken.move_to_end(raw)
        if len(self._spoken) > REMEMBERED_REPLIES:
            self._spoken.popitem(last=False)

    def build(self, request: Request) -> Prompt:
        """Lay a request out. Raises BackendError for a picture whose sides are no multiples of 28 pixels."""
        ids: list[int] = []
        pictures: list[Placed] = []
        for chunk in render(request.messages, request.tools):
            remembered = self._spoken.get(chunk.text) if isinstance(chunk, Spoken) else None
            if remembered is not None:
                ids.extend(remembered)
                continue
            layout = self._tokenizer.lay_out([chunk])
            pictures.extend(placed._replace(start=placed.start + len(ids)) for placed in layout.pictures)
            ids.extend(layout.ids)
        keys: list[Key] = list(ids)
        for placed in pictures:
            media = placed.image.media
            if media.width % FACTOR or media.height % FACTOR or not placed.tokens:
                raise BackendError(
                    f"a picture of {media.width}x{media.height} pixels cannot be laid out: sides must be multiples of "
                    f"{FACTOR}; resize it to what capabilities().cost.image(width, height) says"
                )
            places = range(placed.start, placed.start + placed.tokens)
            keys[places.start : places.stop] = [(media.sha256, ids[at], at - placed.start) for at in places]
        return Prompt(ids, pictures, keys)
