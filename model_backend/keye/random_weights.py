"""Weights of the right size and of no meaning: for speed, for memory, and for holding two implementations together.

Every tensor depends on the seed, its published name and the kind of device alone, so that a served model, sharded or
not, and the torch reference on the same kind of device hold the same numbers without a file between them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from keyeloop.model_backend.keye.config import KeyeConfig
from keyeloop.model_backend.keye.layout import Assignment, published_shapes
from keyeloop.model_backend.keye.model import KeyeModel

NORM_SPREAD = 0.1
"""Standard deviation of norm weights around 1, and of all biases around 0."""


def random_tensors(
    config: KeyeConfig, seed: int, *, device: torch.device | str, dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    """Every published tensor once, in the layout of a checkpoint.

    Matrices are normal with the variance of one over their inputs, embeddings of one, so that activations keep their
    size through all layers; norms and biases differ from 1 and 0 a little, so that leaving one out shows.
    """
    place = torch.device(device)
    for name, shape in published_shapes(config).items():
        generator = torch.Generator(device=place).manual_seed(_seed_of(name, seed))
        tensor = torch.empty(shape, dtype=dtype, device=place)
        if len(shape) == 1:
            tensor.normal_(float(not name.endswith("bias")), NORM_SPREAD, generator=generator)
        else:
            tensor.normal_(0.0, _inputs(name, shape) ** -0.5, generator=generator)
        yield name, tensor


def random_model(
    config: KeyeConfig, seed: int, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> KeyeModel:
    """The torch reference with :func:`random_tensors`, in evaluation mode."""
    from keyeloop.model_backend.keye.weights import fill

    with torch.device("meta"):
        model = KeyeModel(config)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    for name, tensor in random_tensors(config, seed, device=device, dtype=dtype):
        fill(model, Assignment(name, name), tensor, shapes)
    return model.eval()


def _inputs(name: str, shape: tuple[int, ...]) -> int:
    """Values that one output is the sum of; 1 for tables, which are looked up."""
    if name.endswith("embed_tokens.weight") or "position_embedding" in name:
        return 1
    if len(shape) == 3:  # experts: [expert, in, out]
        return shape[1]
    return int(torch.Size(shape[1:]).numel())  # [out, in], and [out, channels, height, width] of the patches


def _seed_of(name: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:7], "big")
