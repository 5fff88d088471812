"""The training network: selection, batching, learning, resuming, pieces; on a toy source of plain grey pictures."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import training.keye_tiny.train as train
from keyeloop.model_backend.keye.weights import load_folder
from tests.training.toy_greys import BUCKETS, SHAPE, ToySample, ToySource, loader, toy_render, toy_sample
from training.keye_tiny.batch import see
from training.keye_tiny.experts import MixtureOfExperts
from training.keye_tiny.feed import Feeder
from training.keye_tiny.learn import COLUMNS, Learner
from training.keye_tiny.model import KeyeTiny, select_keys
from training.keye_tiny.pieces import load_pieces, save_pieces
from training.keye_tiny.recipe import Recipe
from training.keye_tiny.shape import TinyShape
from training.keye_tiny.supply import Stock


def test_selection_is_exact_and_gives_ties_to_the_lowest_index() -> None:
    torch.manual_seed(0)
    scores = torch.randint(0, 4, (3, 20, 20)).float()
    causal = torch.ones(20, 20, dtype=torch.bool).tril()
    found = select_keys(scores, causal, 5)
    for batch in range(3):
        for row in range(20):
            order = sorted(range(row + 1), key=lambda key: (-scores[batch, row, key].item(), key))[:5]
            assert sorted(order) == found[batch, row].nonzero().flatten().tolist()


def test_sparse_is_dense_up_to_topk_and_not_beyond() -> None:
    torch.manual_seed(1)
    model = KeyeTiny(SHAPE).eval()
    for length, same in ((SHAPE.topk, True), (SHAPE.topk + 20, False)):
        x = torch.randn(2, length, SHAPE.hidden)
        places = torch.arange(length).expand(3, 2, length)
        valid, probes = torch.ones(2, length, dtype=torch.bool), torch.zeros(2, 4, dtype=torch.int64)
        with torch.no_grad():
            dense, sparse = (model.decode(x, places, valid, probes, sparse=mode)[0] for mode in (False, True))
        assert torch.allclose(dense, sparse, atol=1e-5) is same


def test_a_row_does_not_depend_on_its_neighbours_or_padding() -> None:
    torch.manual_seed(2)
    model, load = KeyeTiny(SHAPE).eval(), loader()
    stock = Stock(ToySource(), BUCKETS, seed=3)
    samples = [toy_sample(level, crop, head) for level, crop, head in ((0, False, 3), (1, True, 5), (2, False, 7))]
    together = load.load([stock.collate(samples, 64, reader=False)])
    learner = Learner(model, replace(Recipe(), buckets=BUCKETS), 2, compiled=False)
    with torch.no_grad():
        whole = learner.forward(together.micros[0], learner.see(together), sparse=True)[0]
        for index, sample in enumerate(samples):
            alone = load.load([stock.collate([sample], 112, reader=False)])
            found = learner.forward(alone.micros[0], learner.see(alone), sparse=True)[0]
            assert torch.allclose(found, whole[2 * index : 2 * index + 2], atol=1e-4)


def test_visual_tokens_are_the_same_padded_or_not() -> None:
    torch.manual_seed(4)
    model, load = KeyeTiny(SHAPE).eval(), loader()
    pixels = toy_render(torch.device("cpu"))(np.array([0, 3], np.uint8), 140, 252)
    with torch.no_grad():
        plain = see(model, load.cut(pixels, ()))
        padded = see(model, load.cut(None, [pixels]))
    assert plain is not None and padded is not None
    assert torch.allclose(plain.view(-1, 45, SHAPE.hidden)[:2], padded.view(-1, 64, SHAPE.hidden)[:2, :45], atol=1e-4)


def toy_recipe() -> Recipe:
    return replace(
        Recipe(), peak_rate=4e-3, warm_up_steps=5, buckets=BUCKETS, main_shards=1, dense_share=0.7, print_every_s=1e9
    )


def test_it_learns_to_see() -> None:
    torch.manual_seed(0)
    recipe, stock, load = toy_recipe(), Stock(ToySource(), BUCKETS, seed=3), loader()
    learner = Learner(KeyeTiny(SHAPE), recipe, 2, compiled=False)
    both = load.load([stock.main(1.0) for _ in range(2)])
    for step in range(60):
        if step == 50:
            learner.letter_sums.zero_()
        learner.backward(both, step / 100, sparse=step >= 40)
        learner.update(step / 100, step)
    assert learner.letter_sums[2] > 0.5 * learner.letter_sums[3], "the visual tokens name their letters"
    learner.forget()
    learner.backward(both, 1.0, sparse=True)
    row = dict(zip(COLUMNS, learner.counts[0].sum(0).tolist(), strict=True))
    assert row["loss"] / row["tokens"] < 0.2 and row["answers right"] == row["readings right"] == row["rows"] == 8


@pytest.mark.parametrize("workers", [0, 1])
def test_the_whole_script_saves_and_resumes(tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--minutes", "0.5", "--out", str(tmp_path / "out"), "--state", str(tmp_path / "state"), "--steps", "3",
                 "--workers", str(workers), "--reserve-s", "0.2"]  # fmt: skip
    train.BEGAN = time.monotonic()
    run = train.Run(SHAPE, toy_recipe(), ToySource, toy_render, ToySource.families, train.options_from(arguments))
    run.train()
    assert run.step == 3 and set(load_pieces(tmp_path / "out")) == set(run.model.state_dict())
    assert "reader:frame" in capsys.readouterr().out
    options = train.options_from([*arguments, "--resume"])
    again = train.Run(SHAPE, toy_recipe(), ToySource, toy_render, ToySource.families, options)
    assert again.step == 3
    for one, two in zip(run.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, two)
    again.feeder.close()
    (tmp_path / "state" / "state.pt").unlink()
    light = train.Run(SHAPE, toy_recipe(), ToySource, toy_render, ToySource.families, options)
    assert light.step == 3 and light.progress == again.progress
    for one, two in zip(run.model.parameters(), light.model.parameters(), strict=True):
        assert torch.equal(one.bfloat16().float(), two)
    light.feeder.close()


def test_time_ends_a_run_and_sets_the_schedule(tmp_path: Path) -> None:
    arguments = ["--minutes", "0.04", "--span", "0.5:1", "--out", str(tmp_path), "--state", str(tmp_path),
                 "--workers", "0", "--reserve-s", "0.4"]  # fmt: skip
    train.BEGAN = began = time.monotonic()
    run = train.Run(SHAPE, toy_recipe(), ToySource, toy_render, ToySource.families, train.options_from(arguments))
    run.train()
    assert run.progress >= 1.0 and time.monotonic() - began < 20
    rates = [toy_recipe().rate(share, 50) for share in (0.0, 0.4, 0.7, 0.99)]
    assert rates == sorted(rates, reverse=True)


def test_difficulty_rests_until_readings_are_exact() -> None:
    recipe = replace(Recipe(), ramp_share=0.2, exact_to_go_on=0.5, patience_share=0.4)
    assert recipe.harder(0.3, 0.02, 0.1, 0.6) == pytest.approx(0.4)
    assert recipe.harder(0.3, 0.02, 0.1, 0.2) == 0.3
    assert recipe.harder(0.3, 0.02, 0.5, 0.2) == pytest.approx(0.4)
    assert recipe.harder(0.99, 0.02, 0.1, None) == 1.0


def test_a_failing_worker_is_an_error_with_its_traceback() -> None:
    feeder = Feeder(BrokenSource, BUCKETS, workers=1, seed=1, pin=False)
    with pytest.raises(RuntimeError, match=r"(?s)failed too often.*no such video"):
        feeder.take(False)
    feeder.close()


def test_a_rare_failure_costs_one_shard(capsys: pytest.CaptureFixture[str]) -> None:
    feeder = Feeder(ShakySource, BUCKETS, workers=1, seed=1, pin=False)
    assert [len(feeder.take(False).ids) for _ in range(30)] == [4] * 30
    assert feeder.failed == 1 and "no such picture" in capsys.readouterr().out
    feeder.close()


class BrokenSource(ToySource):
    def make(self, rng: random.Random, difficulty: float) -> ToySample:
        raise ValueError("no such video")

    make_reader = make


class ShakySource(ToySource):
    """Fails once, in its ninth trajectory."""

    def __init__(self) -> None:
        self.made = 0

    def make(self, rng: random.Random, difficulty: float) -> ToySample:
        self.made += 1
        if self.made == 9:
            raise ValueError("no such picture")
        return super().make(rng, difficulty)


def test_pieces_stay_under_their_limit(tmp_path: Path) -> None:
    tensors = {f"t{index}": torch.full((10, 10), float(index)) for index in range(5)}
    names = save_pieces(tensors, tmp_path, limit=900)
    assert len(names) == 3
    found = load_pieces(tmp_path)
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_filmed_pictures_stand_in_for_rendered_ones() -> None:
    load = loader()
    rendered, filmed = (Stock(ToySource(), BUCKETS, seed=3, real_share=share) for share in (0.0, 1.0))
    samples = [toy_sample(2, False, 3), toy_sample(1, True, 2)]
    one, two = (stock.collate(samples, 112, reader=False) for stock in (rendered, filmed))
    assert one.frames is not None and two.frames is not None
    assert len(one.frames.real_at) == 0 and len(two.frames.real_at) == 1 and len(two.mixed[0].real_at) == 1
    for first, second in zip(load.load([one]).passes, load.load([two]).passes, strict=True):
        assert torch.equal(first.patches, second.patches)


def test_routed_experts_are_the_wide_ones() -> None:
    torch.manual_seed(5)
    experts = MixtureOfExperts(TinyShape())
    for weight in experts.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    x, valid = torch.randn(2, 40, 256, requires_grad=True), torch.ones(2, 40, dtype=torch.bool)
    found, _ = experts(x, valid)
    (slope,) = torch.autograd.grad(found.square().sum(), x)
    experts._routed = lambda x, weights, used: experts._wide(x, weights)  # type: ignore[method-assign]
    wanted, _ = experts(x, valid)
    (wanted_slope,) = torch.autograd.grad(wanted.square().sum(), x)
    assert torch.allclose(found, wanted, atol=1e-5)
    assert torch.allclose(slope, wanted_slope, atol=1e-4, rtol=1e-4)


def test_a_frozen_tower_stays_as_it_is() -> None:
    torch.manual_seed(0)
    model, stock, load = KeyeTiny(SHAPE), Stock(ToySource(), BUCKETS, seed=3), loader()
    for part in (model.visual, model.mlp_AR):
        part.requires_grad_(False)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    learner = Learner(model, toy_recipe(), 2, compiled=False, bfloat16=True)
    learner.backward(load.load([stock.main(1.0)]), 0.9, sparse=True)
    learner.update(0.9, 50)
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert moved and not any(name.startswith(("visual", "mlp_AR")) for name in moved)


def test_it_can_begin_with_the_weights_that_ship(tmp_path: Path) -> None:
    shipped = Path(train.__file__).parents[2] / "model_backend" / "keye_tiny"
    arguments = ["--minutes", "1", "--out", str(tmp_path), "--workers", "0", "--start-from", str(shipped)]
    options = train.options_from(arguments)
    run = train.Run(TinyShape(), toy_recipe(), ToySource, toy_render, ToySource.families, options)
    run.feeder.close()
    wanted = load_folder(shipped).state_dict()
    assert run.step == 0 and all(torch.equal(value, wanted[name]) for name, value in run.model.state_dict().items())
