"""What a model is said to be: exact counts, and one-line errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyeloop.model_backend.keye.describe import describe
from keyeloop.model_backend.keye.export import save_folder
from keyeloop.runtime.errors import CheckpointError, InputError
from tests.model_backend.keye_models import small_model


def test_the_published_model_by_name() -> None:
    found = describe("keye-vl-2.0-30b-a3b")
    assert found.parameters == 31_122_082_160 == sum(part.parameters for part in found.parts)
    assert round(found.weight_bytes / 1e9, 2) == 62.24 and found.stored_bytes is None
    parts = {part.name: part.parameters for part in found.parts}
    assert parts["indexer"] == 48 * (1040 * 2048 + 64 * 2048 + 64 + 2 * 64)
    text = found.parameters - parts["vision tower"] - parts["projector"]
    assert found.active_parameters == text - parts["experts"] * 120 // 128


def test_a_folder_is_checked_and_measured(tmp_path: Path) -> None:
    model = small_model()
    save_folder(model, tmp_path)
    found = describe(tmp_path)
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert found.stored_bytes == sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    next(tmp_path.glob("*.safetensors")).unlink()
    with pytest.raises(InputError, match=r"no \*\.safetensors"):
        describe(tmp_path)


def test_unknown_names_and_foreign_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such model; give keye-vl-2\.0-30b-a3b, keye-tiny or a folder"):
        describe("keye-3")
    with pytest.raises(InputError, match=r"no config\.json"):
        describe(tmp_path)
    save_folder(small_model(), tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"vocab_size": 40', '"vocab_size": 48'))
    with pytest.raises(CheckpointError, match=r"model\.embed_tokens\.weight has shape \[40, 24\]"):
        describe(tmp_path)


def test_a_name_without_weights_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keye_tiny").mkdir()
    monkeypatch.setattr("keyeloop.model_backend.keye.describe.__file__", str(tmp_path / "keye/describe.py"))
    with pytest.raises(InputError, match="holds no weights of keye-tiny: install keyeloop again"):
        describe("keye-tiny")
