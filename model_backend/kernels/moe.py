"""A layer's mixture of experts: router, SwiGLU experts and weighted sum; Triton on a GPU, torch elsewhere.

Weights lie as SGLang keeps them: ``w13`` [E, 2 * inter, hidden], gate rows before up rows, and ``w2`` [E, hidden,
inter]. Of tensor-parallel shards (inter split) each rank computes its part, and the caller adds the parts up.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from keyeloop.model_backend.kernels import ops
from keyeloop.runtime.errors import ConfigError

ALIGNMENT_BYTES = 16
"""Rows of weights must start at multiples of this for the copy engine; other sizes are computed by torch."""


def mixture_of_experts(
    x: Tensor,
    gate: Tensor,
    w13: Tensor,
    w2: Tensor,
    top: int,
    *,
    renormalise: bool = True,
    kernels: ops.Kernels = "auto",
) -> Tensor:
    """``sum_e weight_e * down_e(silu(gate_e x) * up_e x)`` over each token's ``top`` experts, for ``x`` [T, hidden].

    ``gate`` [E, hidden] is the router's. Its product is rounded to ``x``'s type, as a linear layer of the model does;
    the best ``top`` experts are chosen (ties to the lowest number, NaN last), their weights are softmax in float32,
    brought to a sum of 1 if ``renormalise`` (Qwen3-MoE's ``norm_topk_prob``). What the products pass on is rounded to
    ``x``'s type, the sum over experts is in float32, best expert first: the same call gives the same bits again.
    Nothing waits for the device and shapes alone decide what is launched: it can be captured in a CUDA graph.

    Raises ConfigError where the shapes do not belong together.
    """
    _check(x, gate, w13, w2, top)
    if not len(x):
        return torch.empty_like(x)
    if not _by_triton(x, w13, w2, kernels):
        return reference(x, gate, w13, w2, top, renormalise)
    from keyeloop.model_backend.kernels.jit import moe_layer

    return moe_layer.mixture_of_experts(_rows(x), _rows(gate), w13, w2, top, renormalise)


def route(x: Tensor, gate: Tensor, top: int, *, renormalise: bool = True) -> tuple[Tensor, Tensor]:
    """Weights [T, top] (float32 or wider) and experts [T, top], best first, in torch: :func:`mixture_of_experts`."""
    exact = torch.promote_types(x.dtype, torch.float32)
    logits = F.linear(x, gate).to(exact)
    chosen = logits.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    chosen = chosen.sort(dim=-1, descending=True, stable=True).indices[:, :top]
    weights = torch.softmax(logits, -1).gather(1, chosen)
    if renormalise:
        weights = weights / weights.sum(-1, keepdim=True)
    return weights, chosen


def reference(x: Tensor, gate: Tensor, w13: Tensor, w2: Tensor, top: int, renormalise: bool) -> Tensor:
    """:func:`mixture_of_experts` in torch; in float64 it is what the kernels are checked against."""
    return weighted(x, *route(x, gate, top, renormalise=renormalise), w13, w2)


def weighted(x: Tensor, weights: Tensor, chosen: Tensor, w13: Tensor, w2: Tensor) -> Tensor:
    """Weighted sum over the given experts, expert by expert in torch. Waits for the device.

    ``weights`` and ``chosen`` [T, top] are those of :func:`route`; a weight's type is the one that is summed in.
    """
    top = chosen.shape[1]
    by_expert, order = chosen.flatten().sort(stable=True)
    counts = torch.bincount(by_expert, minlength=len(w13)).tolist()
    rows = x.new_empty(len(order), x.shape[1])
    for expert, pairs in enumerate(torch.split(order, counts)):
        if len(pairs):
            first, second = F.linear(x[pairs // top], w13[expert].to(x.dtype)).chunk(2, -1)
            rows[pairs] = F.linear(F.silu(first) * second, w2[expert].to(x.dtype))
    return (weights.unsqueeze(-1) * rows.view(len(x), top, -1).to(weights.dtype)).sum(1).to(x.dtype)


def _by_triton(x: Tensor, w13: Tensor, w2: Tensor, kernels: ops.Kernels) -> bool:
    if not ops._triton_wanted(x.device, kernels):
        return False
    aligned = all(size * x.element_size() % ALIGNMENT_BYTES == 0 for size in w2.shape[1:])
    return aligned and w13.is_contiguous() and w2.is_contiguous()


def _rows(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _check(x: Tensor, gate: Tensor, w13: Tensor, w2: Tensor, top: int) -> None:
    experts, hidden, inter = w2.shape
    if w13.shape != (experts, 2 * inter, hidden) or gate.shape != (experts, hidden) or x.shape[1:] != (hidden,):
        raise ConfigError(
            f"experts of x {list(x.shape)}, gate {list(gate.shape)}, w13 {list(w13.shape)} and w2 {list(w2.shape)} do "
            "not belong together: they are [T, hidden], [E, hidden], [E, 2 * inter, hidden] and [E, hidden, inter]"
        )
    if not 1 <= top <= experts:
        raise ConfigError(f"{top} experts a token of {experts}: choose between 1 and {experts}")
