"""The shipped folder: small enough, read back by the runtime, and nearly the trained weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from keyeloop.model_backend.keye.weights import load_folder
from training.keye_tiny.export import LIMIT_BYTES, after_int8, export
from training.keye_tiny.model import KeyeTiny
from training.keye_tiny.pieces import save_pieces
from training.keye_tiny.shape import TinyShape


def test_the_exported_folder_is_small_and_reads_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = {name: value.to(torch.bfloat16) for name, value in KeyeTiny(TinyShape()).state_dict().items()}
    (tmp_path / "weights").mkdir()
    save_pieces(state, tmp_path / "weights")
    size = export(tmp_path / "weights", tmp_path / "model")
    assert 14_000_000 < size <= LIMIT_BYTES
    read = load_folder(tmp_path / "model").state_dict()
    assert read.keys() == state.keys()
    for name, value in after_int8(state).items():
        assert torch.equal(value, read[name])
        worst = (value - state[name].float()).abs().max()
        assert worst <= state[name].float().abs().max() / 127, name
    assert json.loads((tmp_path / "model" / "preprocessor_config.json").read_text())["patch_size"] == 14
