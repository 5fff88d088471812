"""Writing a model folder that :func:`load_folder` reads back: float, or int8 with one scale an output row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from keyeloop.model_backend.keye.layout import SCALE
from keyeloop.model_backend.keye.model import KeyeModel
from keyeloop.model_backend.keye.weights import INDEX_FILE

FILE_BYTES = 16 << 20
_KEPT_FLOAT = ("mlp.gate.weight", "position_embedding.weight", "patch_embedding.weight")
"""Small and sensitive: routers (never quantised in the published releases either), positions, patches."""


def save_folder(model: KeyeModel, folder: Path, int8: bool = True, max_file_bytes: int = FILE_BYTES) -> list[Path]:
    """Write config.json and safetensors files of at most ``max_file_bytes`` (unless one tensor is larger).

    With ``int8``, matrices and experts are stored row-wise (about a quarter of float32) and everything else as float32;
    without it, all in the model's type. Weights already in the folder are replaced. Returns the files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob("*.safetensors"), folder / INDEX_FILE]:
        old.unlink(missing_ok=True)
    shards = _shards(_tensors(model, int8), max_file_bytes)
    written: list[Path] = []
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, str(folder / name), metadata={"format": "pt"})
        written.append(folder / name)
        weight_map.update(dict.fromkeys(shard, name))
    if len(shards) > 1:
        size = sum(tensor.nbytes for shard in shards for tensor in shard.values())
        index = {"metadata": {"total_size": size}, "weight_map": weight_map}
        written.append(_write_json(folder / INDEX_FILE, index))
    written.append(_write_json(folder / "config.json", model.config.to_dict()))
    return written


def quantise_rows(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """int8 values and float32 scales of [out, in] (scale [out, 1]) or [expert, in, out] (scale [expert, 1, out])."""
    values = tensor.float()
    axis = 1  # the input axis, in both layouts
    scale = (values.abs().amax(axis, keepdim=True) / 127.0).clamp_min(torch.finfo(torch.float32).tiny)
    return (values / scale).round().clamp(-127, 127).to(torch.int8), scale


def _tensors(model: KeyeModel, int8: bool) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in model.named_parameters():
        tensor = parameter.detach().cpu().contiguous()
        if int8 and tensor.ndim in (2, 3) and not name.endswith(_KEPT_FLOAT):
            values, scale = quantise_rows(tensor)
            yield name, values
            yield name + SCALE, scale
        else:
            yield name, tensor.float() if int8 else tensor.clone()


def _shards(tensors: Iterator[tuple[str, Tensor]], max_file_bytes: int) -> list[dict[str, Tensor]]:
    shards: list[dict[str, Tensor]] = [{}]
    used = 0
    for name, tensor in tensors:
        if shards[-1] and used + tensor.nbytes > max_file_bytes - (1 << 16):
            shards.append({})
            used = 0
        shards[-1][name] = tensor
        used += tensor.nbytes
    return shards


def _write_json(path: Path, data: object) -> Path:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    return path
