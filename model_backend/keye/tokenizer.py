"""Text and token ids, through a Hugging Face ``tokenizer.json``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from tokenizers import AddedToken, Tokenizer

from keyeloop.model_backend.keye.template import Chunk, Joined, Markup, Picture, Plain, Spoken
from keyeloop.runtime.content import Image
from keyeloop.runtime.errors import CheckpointError

PIXELS_PER_TOKEN = 28 * 28
"""A picture token stands for 2 x 2 patches of 14 x 14 pixels."""
BYTES = 256
"""A vocabulary of no more than these has no merges."""
_MARK = re.compile(r"<[^<>\s]+>")


class Placed(NamedTuple):
    """A picture in a token sequence."""

    image: Image
    start: int
    """Index of its first token."""
    tokens: int


class Layout(NamedTuple):
    """A request as the model sees it."""

    ids: list[int]
    pictures: list[Placed]


class KeyeTokenizer:
    """Encodes template text with special tokens and everything from outside without.

    Special are also the marks that a vocabulary adds without calling them so, as Qwen's does with ``<tool_call>``.
    """

    def __init__(self, path: Path) -> None:
        """Read ``tokenizer.json``. Raises CheckpointError when the file is missing."""
        if not path.is_file():
            raise CheckpointError(f"{path}: no tokenizer; a model folder needs config.json, tokenizer.json and weights")
        self._special = Tokenizer.from_file(str(path))
        self._plain = Tokenizer.from_file(str(path))
        added = [token.content for token in self._special.get_added_tokens_decoder().values() if _is_mark(token)]
        self._plain.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in added])
        self._plain.encode_special_tokens = True
        self._marks = re.compile("|".join(map(re.escape, added)) or r"(?!)")
        self._merges = int(self._special.get_vocab_size(with_added_tokens=False)) > BYTES

    @property
    def size(self) -> int:
        """Number of token ids, special ones included."""
        return int(self._special.get_vocab_size(with_added_tokens=True))

    def id_of(self, token: str) -> int:
        """The id of a special token. Raises CheckpointError when the vocabulary lacks it."""
        found = self._special.token_to_id(token)
        if found is None:
            raise CheckpointError(f"the tokenizer has no token {token!r}")
        return int(found)

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Token ids; with ``special`` false, names of special tokens are ordinary characters."""
        tokenizer = self._special if special else self._plain
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_text(self, text: str) -> list[int]:
        """Token ids of text from outside: names of special tokens are ordinary characters."""
        return self.encode(text, special=False)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens by name."""
        return str(self._special.decode(list(ids), skip_special_tokens=False))

    def lay_out(self, chunks: Iterable[Chunk]) -> Layout:
        """Token ids of a rendered request; a picture of ``w`` x ``h`` pixels takes ``w * h / 784`` places.

        They are those of the whole text encoded at once, as servers do it, with two exceptions: a reply is cut apart
        from what stands before it, and text from outside that holds a mark's name from the template around it.
        """
        ids: list[int] = []
        pictures: list[Placed] = []
        for chunk in chunks:
            if isinstance(chunk, Picture):
                tokens = chunk.image.media.width * chunk.image.media.height // PIXELS_PER_TOKEN
                pictures.append(Placed(chunk.image, len(ids), tokens))
                ids.extend([self.id_of(chunk.pad)] * tokens)
            else:
                ids.extend(self._text(chunk))
        return Layout(ids, pictures)

    def _text(self, chunk: Markup | Plain | Spoken | Joined) -> list[int]:
        if not isinstance(chunk, Joined):
            return self.encode(chunk.text, special=not isinstance(chunk, Plain))
        if self._merges and not self._named(chunk):
            return self.encode(chunk.text, special=True)
        return [token for piece in chunk.pieces for token in self._text(piece)]

    def _named(self, chunk: Joined) -> bool:
        """Whether text from outside holds a mark's name, be it in neighbouring pieces together."""
        texts = groupby(chunk.pieces, lambda piece: isinstance(piece, Plain))
        return any(outside and self._marks.search("".join(piece.text for piece in run)) for outside, run in texts)


def _is_mark(token: AddedToken) -> bool:
    return token.special or _MARK.fullmatch(token.content) is not None
