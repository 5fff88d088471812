"""Turn a training run's weights into the model folder that ships: int8 rows, config, preprocessor settings.

python -m training.keye_tiny.export --weights DIR --out model_backend/keye_tiny
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from keyeloop.model_backend.keye.config import SpecialTokens
from keyeloop.model_backend.keye.export import save_folder
from keyeloop.model_backend.keye.model import KeyeModel
from keyeloop.model_backend.keye.presets import keye_tiny
from keyeloop.model_backend.keye.weights import load_folder
from training.keye_tiny.pieces import load_pieces
from training.keye_tiny.sample import tokenizer
from training.keye_tiny.shape import TinyShape
from training.keye_tiny.world import COST, FRAME_SIZE

LIMIT_BYTES = 19_000_000
FRAME_TOKENS = 48
PREPROCESSOR = {
    "image_processor_type": "KeyeImageAllSlowProcessor",
    "patch_size": 14,
    "merge_size": 2,
    "temporal_patch_size": 1,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "rescale_factor": 1 / 255,
    "min_pixels": COST.limits.image_min_tokens * 784,
    "max_pixels": COST.limits.image_max_tokens * 784,
    "video_min_tokens": 4,
    "video_max_tokens": FRAME_TOKENS,
}
"""Stills take 48 to 64 tokens, a frame of a clip at most 48 (1280 x 720 becomes FRAME_SIZE)."""


def runtime_model(state: Mapping[str, Tensor]) -> KeyeModel:
    """The runtime's model with the trained weights."""
    coder = tokenizer()
    names = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    model = KeyeModel(keye_tiny(TinyShape().vocab_size, SpecialTokens(*(coder.id_of(name) for name in names))))
    model.load_state_dict({name: value.float() for name, value in state.items()})
    return model.eval()


def after_int8(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights as the runtime reads them back from the int8 folder."""
    with tempfile.TemporaryDirectory() as folder:
        save_folder(runtime_model(state), Path(folder))
        return dict(load_folder(Path(folder)).state_dict())


def export(weights: Path, out: Path) -> int:
    """Write the folder; returns its weights' size in bytes. Raises ValueError over ``LIMIT_BYTES``."""
    assert FRAME_SIZE[0] * FRAME_SIZE[1] // 784 <= FRAME_TOKENS
    written = save_folder(runtime_model(load_pieces(weights)), out)
    (out / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2) + "\n")
    size = sum(path.stat().st_size for path in written)
    if size > LIMIT_BYTES:
        raise ValueError(f"{out}: {size} bytes of weights, over {LIMIT_BYTES}")
    return size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("model_backend/keye_tiny"))
    options = parser.parse_args()
    print(f"{options.out}: {export(options.weights, options.out):,} bytes")


if __name__ == "__main__":
    main()
