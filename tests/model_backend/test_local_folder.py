"""A model folder is checked before anything heavy happens, and a saved model answers as it did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import keyeloop.model_backend
from keyeloop.model_backend.base import Request, Sampling
from keyeloop.model_backend.keye.config import KeyeConfig, SpecialTokens
from keyeloop.model_backend.keye.cost import KEYE_2_LIMITS, KEYE_TINY_LIMITS
from keyeloop.model_backend.keye.export import save_folder
from keyeloop.model_backend.keye.model import KeyeModel
from keyeloop.model_backend.keye.presets import keye_30b, keye_tiny
from keyeloop.model_backend.keye.tokenizer import KeyeTokenizer
from keyeloop.model_backend.local.engine import LocalBackend, limits_of
from keyeloop.model_backend.local.folder import model_folder
from keyeloop.runtime.content import Message, Text
from keyeloop.runtime.errors import CheckpointError, ConfigError, InputError
from keyeloop.runtime.media import MediaStore

TOKENIZER = Path(keyeloop.model_backend.__file__).parent / "keye_tiny" / "tokenizer.json"


def config() -> KeyeConfig:
    tokenizer = KeyeTokenizer(TOKENIZER)
    names = ("image_pad", "video_pad", "vision_start", "vision_end")
    return keye_tiny(tokenizer.size, SpecialTokens(*(tokenizer.id_of(f"<|{name}|>") for name in names)))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "my-tiny"
    torch.manual_seed(0)
    save_folder(KeyeModel(config()), folder)
    (folder / "tokenizer.json").write_bytes(TOKENIZER.read_bytes())
    return folder


def test_what_is_missing_is_said(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(InputError, match="no model folder 'nowhere'; give the folder"):
        model_folder("nowhere")
    for name, missing in (("config.json", "config.json"), ("tokenizer.json", "tokenizer.json"), ("", "weights")):
        with pytest.raises(InputError, match=f"has no {missing}"):
            model_folder(tmp_path)
        if name:
            (tmp_path / name).write_bytes((saved / name).read_bytes())
    assert model_folder(saved) == saved


async def test_a_saved_model_is_loaded_under_its_name(saved: Path, tmp_path: Path) -> None:
    backend = LocalBackend.load(saved, device="cpu")
    capabilities = backend.capabilities()
    assert (capabilities.model, capabilities.context_tokens) == ("my-tiny", 32768)
    request = Request((Message("user", (Text("Hello"),)),), sampling=Sampling(max_tokens=4))
    replies = [await some.generate(request, MediaStore(tmp_path)) for some in (backend, LocalBackend.load(str(saved)))]
    assert replies[0].message.raw == replies[1].message.raw and replies[0].usage.output_tokens > 0
    await backend.close()


def test_what_does_not_fit_is_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no device 'abacus'"):
        LocalBackend.load(saved, device="abacus")
    for file in saved.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    table = json.loads(TOKENIZER.read_text(encoding="utf-8"))
    table["added_tokens"].append(dict(table["added_tokens"][-1], id=5000, content="one more"))
    (tmp_path / "tokenizer.json").write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(CheckpointError, match="5001 tokens, but the model's vocab_size is"):
        LocalBackend.load(tmp_path, device="cpu")


def test_limits_follow_the_shape() -> None:
    assert limits_of(config()) == KEYE_TINY_LIMITS and limits_of(keye_30b()) == KEYE_2_LIMITS
