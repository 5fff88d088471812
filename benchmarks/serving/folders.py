"""Makes model folders for benchmarks: the small files of the published shape, with or without random weights.

    python benchmarks/serving/folders.py FOLDER

writes ``FOLDER/full`` (Keye-VL-2.0-30B-A3B without weights, for ``--load-format dummy``), ``FOLDER/cut`` (the same cut
to a few layers), ``FOLDER/dense`` (Qwen3-30B-A3B's shape, without weights) and ``FOLDER/small`` (a toy of all sizes
divided, for a run on a CPU). ``--write cut`` also stores that folder's random weights, made on the GPU, so that it is
a whole checkpoint. The tokenizer spells bytes and has the published special tokens at their published numbers; the
published vocabulary is not here, and no benchmark needs it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from keyeloop.model_backend.keye.config import IndexerConfig, KeyeConfig, SpecialTokens, VisionConfig
from keyeloop.model_backend.keye.export import save_folder
from keyeloop.model_backend.keye.presets import keye_30b
from keyeloop.model_backend.keye.random_weights import random_model
from keyeloop.model_backend.local.folder import EMBEDDED_MODEL, model_folder

PUBLISHED = {
    "<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645, "<|vision_start|>": 151652,
    "<|vision_end|>": 151653, "<|image_pad|>": 151655, "<|video_pad|>": 151656, "<tool_call>": 151657,
    "</tool_call>": 151658, "<tool_response>": 151665, "</tool_response>": 151666, "<think>": 151667,
    "</think>": 151668, "<|frame|>": 151677,
}  # fmt: skip
DENSE: dict[str, Any] = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 48,
    "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 6144,
    "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8, "norm_topk_prob": True,
    "decoder_sparse_step": 1, "mlp_only_layers": [], "vocab_size": 151936, "rms_norm_eps": 1e-6, "rope_theta": 1e7,
    "max_position_embeddings": 262144, "hidden_act": "silu", "attention_bias": False, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "eos_token_id": 151645,
}  # fmt: skip
SHARD_BYTES = 2 << 30


def small() -> KeyeConfig:
    """A toy in the published proportions, with the published numbers of special tokens: served by a CPU in seconds."""
    return KeyeConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=32,
        moe_intermediate_size=64, num_experts=8, num_experts_per_tok=2, vocab_size=151936, rope_theta=1e7,
        mrope_section=(4, 6, 6), max_position_embeddings=262144,
        indexer=IndexerConfig(num_heads=4, head_dim=32, topk=64),
        vision=VisionConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                            image_size=224, patch_size=14, packing_positions=0),
        tokens=SpecialTokens(image=151655, video=151656, vision_start=151652, vision_end=151653, fast_video=151678),
    )  # fmt: skip


def write_small_files(folder: Path, config: KeyeConfig) -> None:
    """config.json, tokenizer, chat template and preprocessor of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {**config.to_dict(), "torch_dtype": "bfloat16", "eos_token_id": PUBLISHED["<|im_end|>"]}
    (folder / "config.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    write_tokenizer(folder, config.max_position_embeddings)
    source = model_folder(EMBEDDED_MODEL)
    shutil.copyfile(source / "chat_template.jinja", folder / "chat_template.jinja")
    shutil.copyfile(source / "preprocessor_config.json", folder / "preprocessor_config.json")


def write_tokenizer(folder: Path, max_tokens: int) -> None:
    """Bytes at 0 to 255, special tokens where the published tokenizer has them."""
    source = model_folder(EMBEDDED_MODEL)
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    special = [token for token in tokenizer["added_tokens"] if token["content"] in PUBLISHED]
    tokenizer["added_tokens"] = [token | {"id": PUBLISHED[token["content"]]} for token in special]
    tokenizer["model"]["vocab"] |= PUBLISHED
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    settings = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings["model_max_length"] = max_tokens
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    """Write the folders; a line for each."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("--layers", type=int, default=4, help="layers of the cut (default 4)")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--write", nargs="*", default=[], choices=["cut", "small"], help="store random weights too")
    given = options.parse_args()
    full = keye_30b()
    configs = {"full": full, "cut": replace(full, num_hidden_layers=given.layers), "small": small()}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name, config in configs.items():
        began_s = time.monotonic()
        write_small_files(given.folder / name, config)
        if name in given.write:
            model = random_model(config, given.seed, device=device, dtype=torch.bfloat16)
            save_folder(model, given.folder / name, int8=False, max_file_bytes=SHARD_BYTES)
            del model
            write_small_files(given.folder / name, config)
        weights = "with" if name in given.write else "no"
        took_s = time.monotonic() - began_s
        print(
            f"{given.folder / name}: {config.num_hidden_layers} layers, {weights} weights, {took_s:.1f} s", flush=True
        )
    (given.folder / "dense").mkdir(exist_ok=True)
    (given.folder / "dense" / "config.json").write_text(json.dumps(DENSE, indent=1) + "\n", encoding="utf-8")
    write_tokenizer(given.folder / "dense", DENSE["max_position_embeddings"])
    print(f"{given.folder / 'dense'}: {DENSE['num_hidden_layers']} layers, no weights")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
