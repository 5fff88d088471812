"""Published weights into SGLang's layers: the same names, sharded and stacked as those layers keep them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from keyeloop.model_backend.keye.config import KeyeConfig
from keyeloop.model_backend.keye.layout import SCALE, published_shapes
from keyeloop.runtime.errors import CheckpointError

_IGNORED = re.compile(r"visual\.vision_model\.head\..*|.*rotary.*\.inv_freq|.*\.packing_position_embedding\.weight")
_QKV = re.compile(r"(model\..*\.self_attn)\.([qkv])_proj\.weight")
_ONE_EXPERT = re.compile(r"(.*\.mlp\.experts)\.(\d+)\.(gate|up|down)_proj\.weight")
_SHARD = {"gate": "w1", "up": "w3", "down": "w2"}


def dequantised(weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Weights as floats: an int8 tensor ``X`` waits for its ``X.scale``, wherever in the checkpoint that comes.

    Raises CheckpointError for int8 without a scale.
    """
    waiting: dict[str, Tensor] = {}
    scales: dict[str, Tensor] = {}
    for name, tensor in weights:
        owner = name.removesuffix(SCALE)
        if name.endswith(SCALE):
            scales[owner] = tensor
        elif tensor.dtype == torch.int8:
            waiting[name] = tensor
        else:
            yield name, tensor
            continue
        if owner in waiting and owner in scales:
            yield owner, waiting.pop(owner).float() * scales.pop(owner).float()
    if waiting:
        raise CheckpointError(f"{len(waiting)} int8 tensors without their {SCALE}: {_listing(waiting)}")


def load(model: nn.Module, config: KeyeConfig, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Fill every parameter exactly once.

    Experts may be fused ([expert, in, out], as published) or stored one by one. Raises CheckpointError for tensors that
    are unknown, wrongly shaped or missing.
    """
    shapes = published_shapes(config)
    parameters = dict(model.named_parameters())
    filled: set[str] = set()
    for name, tensor in dequantised(weights):
        one = _ONE_EXPERT.fullmatch(name)
        if _IGNORED.fullmatch(name):
            continue
        if one is not None:
            _expert(parameters, one[1], int(one[2]), one[3], tensor)
        elif name not in shapes:
            raise CheckpointError(f"{name}: not part of the model; check that config.json and weights belong together")
        elif tuple(tensor.shape) != shapes[name]:
            raise CheckpointError(f"{name}: shape {list(tensor.shape)}, the model needs {list(shapes[name])}")
        else:
            _whole(parameters, name, tensor)
        filled.add(name)
    missing = [name for name in shapes if not _IGNORED.fullmatch(name) and not _is_filled(name, shapes[name], filled)]
    if missing:
        raise CheckpointError(f"{len(missing)} tensors missing: {_listing(missing)}; download the checkpoint again")


def _whole(parameters: dict[str, nn.Parameter], name: str, tensor: Tensor) -> None:
    stem, _, leaf = name.rpartition(".")
    if leaf in ("gate_up_proj", "down_proj"):
        parts = {"down": tensor} if leaf == "down_proj" else dict(zip(("gate", "up"), tensor.chunk(2, -1), strict=True))
        for part, experts in parts.items():
            for expert, weight in enumerate(experts):
                _expert(parameters, stem, expert, part, weight.t())
        return
    qkv = _QKV.fullmatch(name)
    if qkv is not None:
        stacked = parameters[f"{qkv[1]}.qkv_proj.weight"]
        stacked.weight_loader(stacked, tensor, qkv[2])  # type: ignore[attr-defined]
        return
    parameter = parameters[name]
    loader = getattr(parameter, "weight_loader", None)
    if loader is not None:
        loader(parameter, tensor)
    else:
        parameter.data.copy_(tensor)


def _expert(parameters: dict[str, nn.Parameter], stem: str, expert: int, part: str, weight: Tensor) -> None:
    """One expert's matrix, [out, in]."""
    name = f"{stem}.{'w2' if part == 'down' else 'w13'}_weight"
    parameter = parameters[name]
    loader = parameter.weight_loader  # type: ignore[attr-defined]
    loader(parameter, weight.contiguous(), name, shard_id=_SHARD[part], expert_id=expert)


def _is_filled(name: str, shape: tuple[int, ...], filled: set[str]) -> bool:
    if name in filled:
        return True
    stem, _, leaf = name.rpartition(".")
    parts = {"gate_up_proj": ("gate", "up"), "down_proj": ("down",)}.get(leaf)
    if parts is None or not stem.endswith(".mlp.experts"):
        return False
    return all(f"{stem}.{expert}.{part}_proj.weight" in filled for expert in range(shape[0]) for part in parts)


def _listing(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - 6} more" if len(listed) > 6 else ""
    return ", ".join(listed[:6]) + more
