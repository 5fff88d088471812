"""Looking before training: the sheet of pictures is what the network sees, and measuring leaves no trace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from tests.training.toy_greys import BUCKETS, SHAPE, ToySource, loader
from training.keye_tiny.feed import Feeder
from training.keye_tiny.learn import Learner
from training.keye_tiny.model import KeyeTiny
from training.keye_tiny.profile import Launches, profile
from training.keye_tiny.recipe import Recipe
from training.keye_tiny.sheet import COLUMNS, save_sheet


def test_the_sheet_shows_each_picture_beside_what_it_says(tmp_path: Path) -> None:
    feeder = Feeder(ToySource, BUCKETS, workers=0, seed=1, pin=False)
    step = loader().load([feeder.take(True)])
    micro = step.micros[0]
    save_sheet(micro, step.passes, tmp_path)
    sheet = cv2.imread(str(tmp_path / "pictures.png"))
    assert sheet is not None and sheet.shape == (140, COLUMNS * 252, 3)
    levels = [int(micro.loss_to[micro.loss_row == row][0]) - 10 for row in range(4)]
    assert [int(sheet[70, 252 * row + 126, 0]) for row in range(4)] == [level * 60 + 20 for level in levels]
    assert len((tmp_path / "pictures.txt").read_text().splitlines()) == 4
    assert np.all(sheet[:, 4 * 252 :] == 0)


def test_measuring_leaves_no_gradient_and_no_count() -> None:
    recipe = replace(Recipe(), buckets=BUCKETS)
    learner = Learner(KeyeTiny(SHAPE), recipe, 2, compiled=False)
    feeder = Feeder(ToySource, BUCKETS, workers=0, seed=1, pin=False)
    lines = list(profile(learner, loader(), feeder, recipe))
    assert len(lines) == 7 and "the whole step: host" in lines[-1]
    assert all(weight.grad is not None and not weight.grad.any() for weight in learner.model.parameters())
    assert not learner.counts.any() and not learner.letter_sums.any()


def test_launches_are_counted_and_views_are_not() -> None:
    with Launches() as counted:
        (torch.ones(4, 4).view(2, 8).transpose(0, 1) * 2).sum()
    assert counted.found == {"ones.default": 1, "mul.Tensor": 1, "sum.default": 1}
