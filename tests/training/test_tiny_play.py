"""Lockstep decoding: the padded cache against whole sequences, and episodes against one-by-one recomputation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.toy_greys import BUCKETS, SHAPE, Grey, ToySource, loader, toy_sample
from training.keye_tiny.arena import Arena
from training.keye_tiny.batch import see
from training.keye_tiny.model import KeyeTiny
from training.keye_tiny.play import Cache, Selection, extend
from training.keye_tiny.supply import Stock


@pytest.mark.parametrize("selection", ["indexer", "dense"])
def test_cached_logits_are_those_of_the_whole_sequence(selection: Selection) -> None:
    torch.manual_seed(0)
    model = KeyeTiny(SHAPE).eval()
    lengths, cuts = [70, 55, 61], [40, 30, 8]
    x = torch.randn(3, 70, SHAPE.hidden)
    positions = torch.stack([torch.arange(70).expand(3, 70), torch.arange(70).expand(3, 70) // 2], 0)
    positions = torch.cat((positions, positions[:1]), 0)
    valid, probes = torch.ones(3, 70, dtype=torch.bool), torch.zeros(3, 4, dtype=torch.int64)
    with torch.no_grad():
        whole = model.lm_head(model.decode(x, positions, valid, probes, sparse=selection == "indexer")[0])
    cache = Cache.empty(model, 5, 80, torch.device("cpu"))
    rows = torch.tensor([4, 1, 2])
    starts = torch.zeros(3, dtype=torch.int64)
    counts = torch.tensor(cuts)
    head = extend(model, cache, rows, starts, x[:, :40], positions[:, :, :40], counts, selection)
    rest = max(length - cut for length, cut in zip(lengths, cuts, strict=True))
    tail_x, tail_places = torch.zeros(3, rest, SHAPE.hidden), torch.zeros(3, 3, rest, dtype=torch.int64)
    for row, (length, cut) in enumerate(zip(lengths, cuts, strict=True)):
        tail_x[row, : length - cut] = x[row, cut:length]
        tail_places[:, row, : length - cut] = positions[:, row, cut:length]
    left = torch.tensor(lengths) - counts
    tail = extend(model, cache, rows, counts, tail_x, tail_places, left, selection)
    for row, (length, cut) in enumerate(zip(lengths, cuts, strict=True)):
        assert torch.allclose(head[row], whole[row, cut - 1], atol=1e-4)
        assert torch.allclose(tail[row], whole[row, length - 1], atol=1e-4)


@dataclass
class ToyEpisode:
    """Shows a picture after the first turn, ends after the second."""

    level: int
    crop: bool
    said: list[str] = field(default_factory=list)
    family: str = "frame"

    def sample(self, *, open_reply: bool) -> Any:
        first = toy_sample(self.level, self.crop, 3 + self.level)
        if not self.said:
            return first
        again = toy_sample((self.level + 1) % 4, self.crop, 2)
        ids = np.concatenate([first.ids, [int(word) for word in self.said[0].split()], again.ids])
        shift = len(ids) - len(again.ids)
        late = again.pictures[0]
        pictures = (*first.pictures, type(late)(late.shown, late.start + shift, late.tokens))
        after = first.positions.max() + 1 + np.arange(len(ids) - len(first.ids), dtype=np.int32)
        positions = np.concatenate([first.positions, np.broadcast_to(after, (3, len(after)))], axis=1)
        return type(first)(first.family, ids.astype(np.int32), np.zeros(len(ids), np.uint8), positions, pictures)

    def submit(self, raw: str) -> bool:
        self.said.append(raw)
        return len(self.said) == 2


class Numbers:
    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(str(token) for token in ids)

    def id_of(self, token: str) -> int:
        return 31


def test_episodes_in_lockstep_say_what_they_say_alone() -> None:
    torch.manual_seed(5)
    model = KeyeTiny(SHAPE).eval()
    model.lm_head.weight.data.mul_(20)
    together = [ToyEpisode(level, level % 2 == 1) for level in range(4)]
    arena = Arena(model, ToySource(), loader(), Numbers(), BUCKETS, rows_at_once=2)
    arena.play(together, slots=256, turn_tokens=6)
    for level in range(4):
        alone = ToyEpisode(level, level % 2 == 1)
        _play_alone(model, alone)
        assert alone.said == together[level].said
    assert len({tuple(episode.said) for episode in together}) > 1


def test_swapped_pictures_change_what_is_seen() -> None:
    torch.manual_seed(5)
    model = KeyeTiny(SHAPE).eval()
    model.lm_head.weight.data.mul_(20)
    plain, swapped, same = ToyEpisode(0, False), ToyEpisode(0, False), ToyEpisode(0, False)
    swaps = [lambda shown: shown, lambda shown: Grey(3, shown.width, shown.height), lambda shown: shown]
    Arena(model, ToySource(), loader(), Numbers(), BUCKETS).play([plain, swapped, same], swaps=swaps, slots=512)
    assert plain.said == same.said
    assert plain.said != swapped.said


def _play_alone(model: KeyeTiny, episode: ToyEpisode) -> None:
    """Greedy decoding that runs the whole sequence anew for every token."""
    stock, load = Stock(ToySource(), BUCKETS, 0), loader()
    ended = False
    while not ended:
        sample = episode.sample(open_reply=True)
        written: list[int] = []
        while len(written) < 6:
            ids = np.concatenate([sample.ids, written]).astype(np.int32)
            after = sample.positions.max() + 1 + np.arange(len(written))
            positions = np.concatenate([sample.positions, np.broadcast_to(after, (3, len(written)))], axis=1)
            longer = type(sample)(sample.family, ids, np.zeros(len(ids), np.uint8), positions, sample.pictures)
            step = load.load([stock.collate([longer], len(ids), reader=False)])
            micro = step.micros[0]
            with torch.no_grad():
                pool = see(model, step.passes)
                assert pool is not None
                x = model.embed(micro.ids, pool[micro.seen_from], micro.seen_to)
                hidden, _ = model.decode(x, micro.positions, micro.valid, micro.probes, sparse=True)
                token = int(model.lm_head(hidden[0, -1]).argmax())
            if token == 31:
                break
            written.append(token)
        ended = episode.submit(" ".join(map(str, written)))
