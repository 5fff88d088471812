"""A toy source for the trainer's tests: one plain grey picture, and the answer is its level."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from training.keye_tiny.batch import Loader, Render
from training.keye_tiny.shape import TinyShape
from training.keye_tiny.supply import Buckets

SHAPE = TinyShape(
    vocab_size=32, hidden=32, layers=2, heads=4, kv_heads=2, head_dim=16, experts=4, expert_width=16,
    mrope_section=(2, 3, 3), index_heads=2, index_dim=16, topk=24, vision_layers=1, vision_width=24, vision_heads=3,
    vision_ffn=48,
)  # fmt: skip
BUCKETS = Buckets(main=((64, 4), (112, 4)), reader=(64, 4), probes=8, frame_chunk=4, mixed_chunk=2)
LEVELS = 4


@dataclass(frozen=True)
class Grey:
    level: int
    width: int
    height: int


@dataclass(frozen=True)
class Placed:
    shown: Grey
    start: int
    tokens: int


@dataclass(frozen=True)
class ToySample:
    family: str
    ids: Any
    loss_kind: Any
    positions: Any
    pictures: tuple[Placed, ...]


class ToySource:
    """Asks which grey it is: after the picture the answer is the level's own token."""

    families = ("frame", "crop")

    def make(self, rng: random.Random, difficulty: float) -> ToySample:
        crop = rng.random() < 0.5
        return toy_sample(rng.randrange(LEVELS), crop, rng.randrange(1, 8))

    def make_reader(self, rng: random.Random, difficulty: float) -> ToySample:
        return toy_sample(rng.randrange(LEVELS), False, 1)

    def pack(self, shown: Grey) -> Any:
        return np.uint8(shown.level)

    def label(self, shown: Grey) -> Any:
        return np.array([[token, shown.level] for token in range(shown.width * shown.height // 784)])

    def stack(self, packed: list[Any]) -> Any:
        return np.array(packed)

    def film(self, shown: list[Grey]) -> list[Any]:
        return [np.full((one.height, one.width, 3), one.level * 60 + 20, np.uint8) for one in shown]


def toy_sample(level: int, crop: bool, head: int) -> ToySample:
    width, height = (112, 84) if crop else (252, 140)
    tokens = width * height // 784
    ids = [1] * head + [2] * tokens + [3, 4, 10 + level, 5]
    wide, high = width // 28, height // 28
    positions = np.zeros((3, len(ids)), np.int32)
    positions[:, :head] = np.arange(head)
    span = slice(head, head + tokens)
    positions[0, span] = head
    positions[1, span] = head + np.repeat(np.arange(high), wide)
    positions[2, span] = head + np.tile(np.arange(wide), high)
    positions[:, head + tokens :] = head + max(wide, high) + np.arange(len(ids) - head - tokens)
    mask = np.zeros(len(ids), np.uint8)
    mask[-2:] = 2, 1
    placed = Placed(Grey(level, width, height), head, tokens)
    return ToySample("crop" if crop else "frame", np.array(ids, np.int32), mask, positions, (placed,))


def toy_render(device: torch.device) -> Render:
    def render(packed: Any, height: int, width: int) -> torch.Tensor:
        levels = torch.from_numpy(np.asarray(packed)).to(device).view(-1, 1, 1, 1)
        return (levels * 60 + 20).to(torch.uint8).expand(len(packed), height, width, 3).contiguous()

    return render


def loader() -> Loader:
    device = torch.device("cpu")
    return Loader(SHAPE, BUCKETS, device, toy_render(device))
