"""Prompts with pictures, and the torch reference's answer to them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from keyeloop.model_backend.keye.indexer import IndexerMode
from keyeloop.model_backend.keye.model import KeyeModel
from keyeloop.model_backend.keye.positions import Grid, rope_positions
from keyeloop.model_backend.keye.template import render
from keyeloop.model_backend.keye.tokenizer import KeyeTokenizer, Placed
from keyeloop.model_backend.keye.weights import load_folder
from keyeloop.model_backend.local.folder import EMBEDDED_MODEL, model_folder
from keyeloop.runtime.content import Image, Message, Part, Text, Video
from keyeloop.runtime.evidence import Region, View
from keyeloop.runtime.media import MediaStore

LONG_WORDS = 900


@dataclass(frozen=True)
class Prompt:
    """A request as the model reads it."""

    ids: list[int]
    pictures: tuple[Placed, ...] = ()
    media: tuple[Part, ...] = ()

    def then(self, ids: Sequence[int]) -> Prompt:
        """This prompt with more tokens behind it."""
        return Prompt([*self.ids, *ids], self.pictures, self.media)


class Painter:
    """Pictures of coloured noise and prompts about them, from one seed."""

    def __init__(self, store: MediaStore, tokenizer: KeyeTokenizer) -> None:
        self._store, self._tokenizer = store, tokenizer

    def picture(self, seed: int, width: int = 252, height: int = 140, time_s: float | None = None) -> Image:
        """A picture of 28-pixel squares, in colours that a seed chooses."""
        colours = np.random.default_rng(seed).integers(0, 256, (height // 28, width // 28, 3), dtype=np.uint8)
        pixels = colours.repeat(28, 0).repeat(28, 1)
        shown = Region(0, 0, width, height)
        view = None if time_s is None else View(f"f{seed}", "video-1", "0" * 64, time_s, shown)
        return Image(self._store.put_image(pixels), view)

    def clip(self, seeds: Sequence[int], first_s: float = 83.0) -> Video:
        """Frames a second apart."""
        return Video(tuple(self.picture(seed, time_s=first_s + number) for number, seed in enumerate(seeds)))

    def ask(self, *parts: Part | str) -> Prompt:
        """A user's turn, with the reply opened."""
        content = tuple(Text(part) if isinstance(part, str) else part for part in parts)
        return self.lay_out([Message("user", content)])

    def lay_out(self, messages: Sequence[Message]) -> Prompt:
        """A whole conversation."""
        laid = self._tokenizer.lay_out(render(messages, ()))
        media = tuple(part for message in messages for part in message.parts if not isinstance(part, Text))
        return Prompt(laid.ids, tuple(laid.pictures), media)


def long_text(seed: int = 0) -> str:
    """Words that fill far more places than the indexer chooses."""
    choose = random.Random(seed)
    return " ".join(choose.choice(("board", "seven", "417", "at", "shows")) for _ in range(LONG_WORDS // 5))


class Reference:
    """The architecture in torch, one request at a time."""

    def __init__(self, mode: IndexerMode, store: MediaStore) -> None:
        self._model: KeyeModel = load_folder(model_folder(EMBEDDED_MODEL), indexer_mode=mode)
        self._store = store

    @property
    def vocabulary(self) -> int:
        return self._model.config.vocab_size

    @torch.inference_mode()
    def distributions(self, prompt: Prompt, *, noise: float = 0.0, seed: int = 0) -> Tensor:
        """Log-probabilities [T, vocabulary] behind each place; ``noise`` is relative to the embeddings."""
        embedded, positions, _ = self._read(prompt)
        random = torch.Generator().manual_seed(seed)
        embedded = embedded * (1 + noise * torch.randn(embedded.shape, generator=random))
        return torch.log_softmax(self._model(embedded, positions, logits="all"), -1)

    @torch.inference_mode()
    def greedy(self, prompt: Prompt, tokens: int) -> list[int]:
        """The likeliest tokens after a prompt, one after another."""
        model, cache = self._model, self._model.new_cache()
        embedded, positions, delta = self._read(prompt)
        found = [int(model(embedded, positions, cache).argmax())]
        while len(found) < tokens:
            position = torch.full((3, 1), cache.length + delta)
            found.append(int(model(model.embed(found[-1:]), position, cache).argmax()))
        return found

    def _read(self, prompt: Prompt) -> tuple[Tensor, Tensor, int]:
        model, tokens = self._model, self._model.config.tokens
        features = model.encode_pictures([self._store.pixels(placed.image.media) for placed in prompt.pictures])
        grids = [grid_of(placed) for placed in prompt.pictures]
        positions, delta = rope_positions(prompt.ids, grids, tokens.pictures)
        return model.embed(prompt.ids, features), positions, delta


def grid_of(placed: Placed) -> Grid:
    """(1, rows, columns) in patches of 14 pixels."""
    return 1, placed.image.media.height // 14, placed.image.media.width // 14
