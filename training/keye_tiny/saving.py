"""Saves and restores a training run. Every file is whole at any moment: it is written aside and then renamed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch

from training.keye_tiny.learn import Learner
from training.keye_tiny.pieces import load_pieces, save_pieces

FACTS = "train.json"
STATE = "state.pt"


class Place(NamedTuple):
    """Where a run stood."""

    step: int
    progress: float
    whole: bool
    """With the optimiser's state; otherwise weights alone."""


def save(learner: Learner, out: Path, state: Path, step: int, progress: float) -> list[str]:
    """Weights in bfloat16 and the facts to ``out``, everything to ``state``; returns the names of the weight files."""
    out.mkdir(parents=True, exist_ok=True)
    state.mkdir(parents=True, exist_ok=True)
    weights = {name: value.to(torch.bfloat16) for name, value in learner.model.state_dict().items()}
    names = save_pieces(weights, out)
    facts = {"step": step, "progress": progress, "recipe": asdict(learner.recipe), "pieces": names}
    _replace(out / FACTS, json.dumps(facts, indent=1).encode())
    whole = {
        "model": learner.model.state_dict(),
        "letters": learner.letters.state_dict(),
        "optimiser": learner.optimiser.state_dict(),
        "step": step,
        "progress": progress,
    }
    torch.save(whole, state / f"{STATE}.new")
    (state / f"{STATE}.new").replace(state / STATE)
    return names


def restore(learner: Learner, out: Path, state: Path) -> Place:
    """Bring back what :func:`save` left in ``state`` or, when that is gone, the weights in ``out``.

    FileNotFoundError when there is neither.
    """
    device = learner.device
    if (state / STATE).is_file():
        found = torch.load(state / STATE, map_location=device, weights_only=True)
        learner.model.load_state_dict(found["model"])
        learner.letters.load_state_dict(found["letters"])
        learner.optimiser.load_state_dict(found["optimiser"])
        return Place(int(found["step"]), float(found["progress"]), True)
    weights = {name: value.float() for name, value in load_pieces(out).items()}
    learner.model.load_state_dict(weights)
    facts = json.loads((out / FACTS).read_text())
    return Place(int(facts["step"]), float(facts["progress"]), False)


def _replace(path: Path, data: bytes) -> None:
    aside = path.with_name(path.name + ".new")
    aside.write_bytes(data)
    aside.replace(path)
