"""Plays a batch of episodes to their end with the network, turn by turn in lockstep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from training.keye_tiny.batch import Loader, see
from training.keye_tiny.model import KeyeTiny
from training.keye_tiny.play import Cache, Selection, decode, extend
from training.keye_tiny.supply import Buckets, Source, Stock

MAX_TURNS = 6
MAX_TURN_TOKENS = 160
SLOTS = 1536


class Playable(Protocol):
    """What the arena needs of an episode."""

    family: Any

    def sample(self, *, open_reply: bool) -> Any:
        """Token ids, positions and pictures so far."""

    def submit(self, raw: str) -> bool:
        """Take the model's turn; true when the episode has ended."""


class Codec(Protocol):
    """Token ids to text."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens by name."""

    def id_of(self, token: str) -> int:
        """Id of a special token."""


@dataclass
class _Seat:
    episode: Playable
    swap: Any
    row: int
    cached: list[int]


class Arena:
    """One network, one device."""

    def __init__(
        self,
        model: KeyeTiny,
        source: Source,
        loader: Loader,
        codec: Codec,
        buckets: Buckets,
        *,
        rows_at_once: int = 128,
    ) -> None:
        self._model, self._loader, self._codec = model.eval(), loader, codec
        self._stock = Stock(source, buckets, 0)
        self._device = next(model.parameters()).device
        self._end = codec.id_of("<|im_end|>")
        self._rows_at_once = rows_at_once
        self.turns = 0

    def play(
        self,
        episodes: Sequence[Playable],
        *,
        selection: Selection = "indexer",
        swaps: Sequence[Any] | None = None,
        slots: int = SLOTS,
        turn_tokens: int = MAX_TURN_TOKENS,
        seed: int = 0,
    ) -> None:
        """Play all episodes to their end, or to ``MAX_TURNS``.

        ``swaps`` gives each episode a function from a picture's recipe to the recipe that is shown in its stead.
        """
        cache = Cache.empty(self._model, len(episodes), slots, self._device)
        generator = torch.Generator(self._device).manual_seed(seed)
        seats = [
            _Seat(episode, swaps[row] if swaps is not None else None, row, []) for row, episode in enumerate(episodes)
        ]
        for _ in range(MAX_TURNS):
            if not seats:
                return
            seats = self._turn(seats, cache, selection, generator, slots, turn_tokens)

    def _turn(
        self,
        seats: list[_Seat],
        cache: Cache,
        selection: Selection,
        generator: torch.Generator,
        slots: int,
        turn_tokens: int,
    ) -> list[_Seat]:
        feeds = [self._feed(seat) for seat in seats]
        ready = [
            (seat, feed) for seat, feed in zip(seats, feeds, strict=True) if len(seat.cached) + len(feed.ids) < slots
        ]
        ready.sort(key=lambda pair: len(pair[1].ids))
        logits, next_positions = [], []
        for first in range(0, len(ready), self._rows_at_once):
            chunk = ready[first : first + self._rows_at_once]
            logits.append(self._prefill(chunk, cache, selection, generator))
            next_positions += [int(feed.positions[:, -1].max()) + 1 for _, feed in chunk]
        for seat, feed in ready:
            seat.cached += feed.ids.tolist()
        if not ready:
            return []
        texts = decode(
            self._model,
            cache,
            self._tensor([seat.row for seat, _ in ready]),
            self._tensor([len(seat.cached) for seat, _ in ready]),
            self._tensor(next_positions),
            torch.cat(logits),
            self._end,
            turn_tokens,
            selection,
            generator,
        )
        going: list[_Seat] = []
        self.turns += len(ready)
        for (seat, _), written in zip(ready, texts, strict=True):
            seat.cached += written
            if not seat.episode.submit(self._codec.decode(written)):
                going.append(seat)
        return going

    def _feed(self, seat: _Seat) -> Any:
        """What the cache lacks: the sample from the first token that differs, at least one token."""
        sample = seat.episode.sample(open_reply=True)
        ids = sample.ids.tolist()
        same = 0
        for ours, theirs in zip(seat.cached, ids[:-1], strict=False):
            if ours != theirs:
                break
            same += 1
        for picture in sample.pictures:
            if picture.start < same < picture.start + picture.tokens:
                same = picture.start
        seat.cached = seat.cached[:same]
        pictures = tuple(
            replace(
                picture,
                start=picture.start - same,
                shown=picture.shown if seat.swap is None else seat.swap(picture.shown),
            )
            for picture in sample.pictures
            if picture.start >= same
        )
        return replace(
            sample,
            ids=sample.ids[same:],
            positions=sample.positions[:, same:],
            loss_kind=np.zeros(len(ids) - same, np.uint8),
            pictures=pictures,
        )

    def _prefill(
        self, chunk: list[tuple[_Seat, Any]], cache: Cache, selection: Selection, generator: torch.Generator
    ) -> torch.Tensor:
        longest = max(len(feed.ids) for _, feed in chunk)
        step = self._loader.load([self._stock.collate([feed for _, feed in chunk], longest, reader=False)])
        micro = step.micros[0]
        with torch.no_grad():
            pool = see(self._model, step.passes)
            seen = None if pool is None else pool.index_select(0, micro.seen_from)
            x = self._model.embed(micro.ids, seen, micro.seen_to)
        return extend(
            self._model,
            cache,
            self._tensor([seat.row for seat, _ in chunk]),
            self._tensor([len(seat.cached) for seat, _ in chunk]),
            x,
            micro.positions,
            self._tensor([len(feed.ids) for _, feed in chunk]),
            selection,
            generator,
        )

    def _tensor(self, values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)
