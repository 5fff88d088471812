"""From a drawn picture to the decoder's input: every picture arrives whole and at its own place."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from keyeloop.tools.demo_video.glyphs import CHARACTERS, GlyphAtlas
from keyeloop.tools.demo_video.paint import paint
from keyeloop.tools.demo_video.scene import Background, Style
from keyeloop.tools.video.child.picture import cut
from training.keye_tiny.batch import Loader, Micro, Pass, Step
from training.keye_tiny.letters import CLASSES
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
        return self._keep(super().make(rng, difficulty))

    def make_reader(self, rng: random.Random, difficulty: float) -> Sample:
        return self._keep(super().make_reader(rng, difficulty))

    def _keep(self, sample: Sample) -> Sample:
        """Without grain, which no two painters share."""
        pictures = tuple(
            replace(one, shown=replace(one.shown, scene=replace(one.shown.scene, noise=0.0))) for one in sample.pictures
        )
        self.drawn.append(replace(sample, pictures=pictures))
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
def loaded() -> tuple[Watched, list[Shard], list[tuple[Micro, Step]], list[list[Sample]]]:
    atlas = GlyphAtlas.bundled()
    source = Watched(atlas)
    stock = Stock(source, BUCKETS, seed=5, real_share=0.3)
    shards, rows = [], []
    for reader in (False, True, False, False, True):
        shards.append((stock.reader if reader else stock.main)(1.0))
        rows.append([_owner(source.drawn, shards[-1], row) for row in range(len(shards[-1].ids))])
    steps = Loader(SHAPE, BUCKETS, torch.device("cpu"), clean(atlas)).load_all([shards[:2], shards[2:3], shards[3:]])
    return source, shards, [(micro, step) for step in steps for micro in step.micros], rows


def _owner(drawn: list[Sample], shard: Shard, row: int) -> Sample:
    ids = shard.ids[row, : shard.lengths[row]]
    return next(sample for sample in drawn if np.array_equal(sample.ids, ids))


def test_every_picture_arrives_whole_at_its_own_place(loaded: Any) -> None:
    source, shards, micros, rows = loaded
    checked, filmed, sizes = 0, 0, set()
    for shard, (micro, step), samples in zip(shards, micros, rows, strict=True):
        assert micro.reader == shard.reader
        tiles = pool_of(step.passes)
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
    for shard, (micro, _), samples in zip(*loaded[1:], strict=True):
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


def test_letters_are_labelled_where_they_stand(loaded: Any) -> None:
    """Paint the letter alone, in white on black: its ink's middle lies in the labelled half of the labelled token."""
    source, shards, micros, rows = loaded
    checked = 0
    for shard, (micro, _), samples in zip(shards, micros, rows, strict=True):
        token_of = {int(flat): index for index, flat in enumerate(micro.seen_to.tolist())}
        labels: dict[int, set[int]] = {}
        for token, label in zip(micro.letter_at.tolist(), micro.letter.tolist(), strict=True):
            labels.setdefault(token, set()).add(label)
        for row, sample in enumerate(samples[:4]):
            for placing in sample.pictures[:2]:
                for character, place, x, y in ink_middles(placing.shown, source.atlas):
                    columns = placing.shown.width // 28
                    token = token_of[row * shard.length + placing.start + int(y // 28) * columns + int(x // 28)]
                    first = int(x % 28 >= 14) * CLASSES
                    assert {first + CHARACTERS.index(character), first + len(CHARACTERS) + place} <= labels[token]
                    checked += 1
    assert checked > 20


def ink_middles(shown: Shown, atlas: GlyphAtlas) -> list[tuple[str, int, float, float]]:
    """Letters of the board that are drawn well inside a half cell: character, place, middle of the ink in pixels."""
    found = []
    board, region = shown.scene.board, shown.region
    line = atlas.line(board.run.text, board.run.font, board.run.spacing)
    black = replace(
        shown.scene,
        background=Background(Style.FLAT, (0, 0, 0), (0, 0, 0)),
        signs=(),
        shapes=(),
        brightness=0.0,
        contrast=1.0,
        noise=0.0,
    )
    for place, character in enumerate(board.run.text):
        alone = atlas.line(character, board.run.font)
        spot = line.placements[place]
        x = board.run.x + (spot.x + spot.width / 2 - line.width / 2) * board.run.cap_px / 64
        run = replace(board.run, text=character, x=x, colour=(255, 255, 255))
        assert alone.width == spot.width
        panel = replace(board, fill=(0, 0, 0), border=(0, 0, 0), run=run)
        inked = paint(replace(black, board=panel), atlas).max(axis=(0, 2)) > 128
        columns = np.flatnonzero(inked)
        if not len(columns):
            continue
        ink_x = ((columns[0] + columns[-1] + 1) / 2 - region.x0) * shown.width / region.width
        ink_y = (board.run.y - region.y0) * shown.height / region.height
        inside = 0 <= ink_x < shown.width and 0 <= ink_y < shown.height and 1 < ink_x % 14 < 13
        if inside and board.run.cap_px * shown.height / region.height >= 9:
            found.append((character, place, ink_x, ink_y))
    return found


def pool_of(passes: tuple[Pass, ...]) -> np.ndarray:
    """Pixels [tokens, 28, 28, 3] of the pool of visual tokens, undone from patches in merge order."""
    tokens = [one.patches.view(-1, 2, 2, 3, 14, 14) for one in passes]
    return torch.cat(tokens).permute(0, 1, 4, 2, 5, 3).reshape(-1, 28, 28, 3).numpy()


def assembled(tiles: np.ndarray, shown: Shown) -> np.ndarray:
    high, wide = shown.height // 28, shown.width // 28
    return tiles.reshape(high, wide, 28, 28, 3).transpose(0, 2, 1, 3, 4).reshape(shown.height, shown.width, 3)
