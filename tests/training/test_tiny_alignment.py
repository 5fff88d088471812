"""From a drawn picture to the decoder's input: every picture arrives whole and at its own place."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from keyeloop.tools.demo_video.glyphs import GlyphAtlas
from keyeloop.tools.demo_video.paint import paint
from keyeloop.tools.video.child.picture import cut
from training.keye_tiny.batch import Loader, Micro, Pass
from training.keye_tiny.render import BatchRenderer
from training.keye_tiny.sample import Sample, Shown
from training.keye_tiny.shape import TinyShape
from training.keye_tiny.source import BoardSource
from training.keye_tiny.supply import Buckets, Shard, Stock

SHAPE = TinyShape()
BUCKETS = Buckets(main=((512, 5), (800, 3)), reader=(112, 24), probes=4, frame_chunk=8, mixed_chunk=4)


class Watched(BoardSource):
    """Remembers what it drew; its films are the clean pictures, inverted."""

    def __init__(self, atlas: GlyphAtlas) -> None:
        super().__init__(atlas)
        self.drawn: list[Sample] = []
        self.filmed: set[int] = set()

    def make(self, rng: random.Random, difficulty: float) -> Sample:
        self.drawn.append(super().make(rng, difficulty))
        return self.drawn[-1]

    def make_reader(self, rng: random.Random, difficulty: float) -> Sample:
        self.drawn.append(super().make_reader(rng, difficulty))
        return self.drawn[-1]

    def film(self, shown: list[Shown]) -> list[Any]:
        self.filmed |= {id(one) for one in shown}
        return [255 - direct(one, self.atlas) for one in shown]


def direct(shown: Shown, atlas: GlyphAtlas) -> Any:
    """The picture on its own, from the painter and the video tools' own cut."""
    region = shown.region
    box = (region.x0, region.y0, region.x1, region.y1)
    return cut(paint(shown.scene, atlas), (1280, 720), box, (shown.width, shown.height))


def clean(atlas: GlyphAtlas) -> Callable[[Any, int, int], Tensor]:
    renderer = BatchRenderer(atlas, "cpu", chunk_pixels=3 * 252 * 140)
    return lambda packed, height, width: renderer.render(packed, height, width, degrade=False)


@pytest.fixture(scope="module")
def loaded() -> tuple[Watched, list[Shard], list[Micro], list[list[Sample]]]:
    atlas = GlyphAtlas.bundled()
    source = Watched(atlas)
    stock = Stock(source, BUCKETS, seed=5, real_share=0.3)
    shards, rows = [], []
    for reader in (False, True, False, False, True):
        shards.append((stock.reader if reader else stock.main)(0.0))
        rows.append([_owner(source.drawn, shards[-1], row) for row in range(len(shards[-1].ids))])
    micros = Loader(SHAPE, BUCKETS, torch.device("cpu"), clean(atlas)).load_all(shards)
    return source, shards, micros, rows


def _owner(drawn: list[Sample], shard: Shard, row: int) -> Sample:
    ids = shard.ids[row, : shard.lengths[row]]
    return next(sample for sample in drawn if np.array_equal(sample.ids, ids))


def test_every_picture_arrives_whole_at_its_own_place(loaded: Any) -> None:
    source, shards, micros, rows = loaded
    checked, filmed, sizes = 0, 0, set()
    for shard, micro, samples in zip(shards, micros, rows, strict=True):
        assert micro.reader == shard.reader
        tiles = pool_of(micro.passes)
        at = dict(zip(micro.seen_to.tolist(), micro.seen_from.tolist(), strict=True))
        assert (
            len(at) == len(micro.seen_to) == len(set(at.values())) == sum(p.tokens for s in samples for p in s.pictures)
        )
        for row, sample in enumerate(samples):
            for placing in sample.pictures:
                first = row * shard.length + placing.start
                pixels = assembled(tiles[[at[first + index] for index in range(placing.tokens)]], placing.shown)
                wanted = direct(placing.shown, source.atlas)
                if id(placing.shown) in source.filmed:
                    wanted = 255 - wanted
                    assert np.array_equal(pixels, wanted)
                    filmed += 1
                away = np.abs(pixels.astype(int) - wanted)
                assert away.mean() < 2.5, (sample.family, row, placing.shown)
                checked += 1
                sizes.add((placing.shown.width, placing.shown.height))
    assert checked > 30 and filmed > 3 and len(sizes) > 2, "frames, zooms and other crops"


def test_picture_tokens_stand_on_their_grid(loaded: Any) -> None:
    for shard, micro, samples in zip(*loaded[1:], strict=True):
        assert torch.equal(micro.positions, torch.from_numpy(shard.positions))
        for row, sample in enumerate(samples):
            for placing in sample.pictures:
                span = slice(placing.start, placing.start + placing.tokens)
                time, down, across = micro.positions[:, row, span].int()
                wide = placing.shown.width // 28
                place = torch.arange(placing.tokens)
                assert torch.equal(down - time, (place // wide).int()) and torch.equal(
                    across - time, (place % wide).int()
                )


def pool_of(passes: tuple[Pass, ...]) -> np.ndarray:
    """Pixels [tokens, 28, 28, 3] of the pool of visual tokens, undone from patches in merge order."""
    tokens = [one.patches.view(-1, 2, 2, 3, 14, 14) for one in passes]
    return torch.cat(tokens).permute(0, 1, 4, 2, 5, 3).reshape(-1, 28, 28, 3).numpy()


def assembled(tiles: np.ndarray, shown: Shown) -> np.ndarray:
    high, wide = shown.height // 28, shown.width // 28
    return tiles.reshape(high, wide, 28, 28, 3).transpose(0, 2, 1, 3, 4).reshape(shown.height, shown.width, 3)
