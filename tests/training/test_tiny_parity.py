"""The training network and the runtime model are two implementations of one architecture: same names, same logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from keyeloop.model_backend.keye.config import SpecialTokens
from keyeloop.model_backend.keye.model import KeyeModel
from keyeloop.model_backend.keye.presets import keye_tiny
from training.keye_tiny.batch import Loader, see
from training.keye_tiny.model import KeyeTiny
from training.keye_tiny.play import Cache, Selection, extend
from training.keye_tiny.shape import TinyShape
from training.keye_tiny.supply import Buckets

SHAPE = TinyShape()
VIDEO = 262


def twins(seed: int) -> tuple[KeyeTiny, KeyeModel]:
    """Both models with the same random weights; norms and biases random too, so that a swapped one shows."""
    torch.manual_seed(seed)
    ours = KeyeTiny(SHAPE).eval()
    with torch.no_grad():
        for weight in ours.parameters():
            if weight.dim() == 1:
                weight.add_(torch.randn_like(weight) * 0.2)
    tokens = SpecialTokens(image=261, video=VIDEO, vision_start=259, vision_end=260)
    theirs = KeyeModel(keye_tiny(SHAPE.vocab_size, tokens)).eval()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def test_vision_and_projector_agree_on_every_size() -> None:
    ours, theirs = twins(1)
    rng = np.random.default_rng(0)
    sizes = [(140, 252), (140, 252), (196, 224), (112, 112), (84, 448)]
    pictures = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in sizes]
    loader = Loader(SHAPE, Buckets(frame_chunk=2, mixed_chunk=2), torch.device("cpu"), _no_render)
    frames = torch.from_numpy(np.stack(pictures[:2]))
    mixed = [torch.from_numpy(picture[None]) for picture in pictures[2:]]
    with torch.no_grad():
        pool = see(ours, loader.cut(frames, mixed))
        wanted = theirs.encode_pictures(pictures)
    assert pool is not None
    found = [pool[:45], pool[45:90], *(pool[90 + 64 * index :][: len(wanted[2 + index])] for index in range(3))]
    for one, two in zip(found, wanted, strict=True):
        assert torch.allclose(one, two, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("mode", ["dense", "sparse"])
def test_logits_agree_with_a_picture_in_the_prompt(mode: str) -> None:
    ours, theirs = twins(2)
    torch.manual_seed(3)
    ids = torch.randint(0, 256, (200,))
    ids[60:105] = VIDEO
    text = torch.arange(60)
    grid = torch.stack([torch.zeros(45), torch.arange(45) // 9, torch.arange(45) % 9]).long() + 60
    positions = torch.cat([text.expand(3, -1), grid, (torch.arange(95) + 69).expand(3, -1)], dim=1)
    feature = torch.randn(45, SHAPE.hidden) * 0.05
    valid, probes = torch.ones(1, 200, dtype=torch.bool), torch.zeros(1, 4, dtype=torch.int64)
    with torch.no_grad():
        wanted = theirs(theirs.embed(ids, [feature]), positions, mode=mode, logits="all")
        x = ours.embed(ids[None], feature, torch.arange(60, 105))
        hidden, _ = ours.decode(x, positions[:, None], valid, probes, sparse=mode == "sparse")
        found = ours.lm_head(hidden)[0]
    assert torch.allclose(found, wanted, atol=2e-4, rtol=1e-4), (found - wanted).abs().max()
    selection: Selection = "indexer" if mode == "sparse" else "dense"
    cache = Cache.empty(ours, 1, 256, torch.device("cpu"))
    row, zero = torch.tensor([0]), torch.tensor([0])
    extend(ours, cache, row, zero, x[:, :150], positions[:, None, :150], torch.tensor([150]), selection)
    last = extend(
        ours, cache, row, torch.tensor([150]), x[:, 150:], positions[:, None, 150:], torch.tensor([50]), selection
    )
    assert torch.allclose(last[0], wanted[-1], atol=2e-4, rtol=1e-4)


def _no_render(packed: object, height: int, width: int) -> torch.Tensor:
    raise AssertionError("pictures are given")
