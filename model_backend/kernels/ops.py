"""The four operations of sparse attention over paged memory; this module chooses who computes them.

CUDA tensors go to Triton, all others to the torch reference. ``kernels="reference"``, or ``KEYE_KERNELS=reference`` in
the environment, takes the reference anywhere; ``triton`` on CPU tensors needs Triton's interpreter.
``KEYE_KERNELS=cuda`` adds the kernels in CUDA C++ (:mod:`~keyeloop.model_backend.kernels.cuda`) on
Hopper, where they fit.

Memory is addressed by slots: ``slot_table`` [requests, width] int32 holds in row ``r`` the slots of request ``r``'s
tokens, in order. Queries are flattened over requests: ``query_row`` [T] int32 names the row of ``slot_table``,
``query_position`` [T] int32 the place of the token, which sees places 0 to its own. A position of -1 is padding: it
selects nothing and attends to nothing. Shapes alone decide what is launched and nothing waits for the device (but for
the reference outside CUDA graphs), so that the Triton side can be captured; memory is bounded by chunking queries.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from keyeloop.model_backend.kernels import reference
from keyeloop.model_backend.kernels.index_keys import IndexKeys
from keyeloop.model_backend.keye.indexer import IndexerMode
from keyeloop.runtime.errors import ConfigError

Kernels = Literal["auto", "reference", "triton"]
ENVIRONMENT = "KEYE_KERNELS"


def choose(device: torch.device, kernels: Kernels = "auto") -> Literal["reference", "triton"]:
    """Who computes on ``device``: the argument, else the environment, else by device."""
    wanted = kernels if kernels != "auto" else os.environ.get(ENVIRONMENT, "auto")
    if wanted not in ("auto", "reference", "triton", "cuda"):
        raise ConfigError(f"{ENVIRONMENT}={wanted}: unknown; one of auto, reference, triton, cuda")
    if wanted in ("auto", "cuda"):
        return "triton" if device.type == "cuda" else "reference"
    return "reference" if wanted == "reference" else "triton"


def store_index_keys(index_k: IndexKeys, keys: Tensor, slots: Tensor, *, kernels: Kernels = "auto") -> None:
    """Keep index keys [T, D], normalised and rotated, under ``slots`` [T] of any integer type.

    Mode ``fp8`` (known from ``index_k``) spreads them with a Hadamard transform and rounds them to e4m3, as shipped.
    """
    if not _triton_wanted(keys.device, kernels):
        reference.store_index_keys(index_k, keys, slots)
        return
    from keyeloop.model_backend.kernels import fast

    fast.store_index_keys(index_k, keys, slots)


def index_queries(
    heads: Tensor, gates: Tensor, mode: IndexerMode, *, kernels: Kernels = "auto"
) -> tuple[Tensor, Tensor]:
    """``index_q`` and ``index_weight`` of normalised, rotated queries [T, H, D] and gates [T, H] times ``D**-0.5``.

    Mode ``exact`` passes them on, gates in float32; mode ``fp8`` returns e4m3 queries and gates times their scales.
    """
    if mode == "exact":
        return heads, gates.to(torch.promote_types(gates.dtype, torch.float32))
    if not _triton_wanted(heads.device, kernels):
        return reference.round_queries(heads, gates)
    from keyeloop.model_backend.kernels import fast

    return fast.round_queries(heads, gates)


def select(
    index_q: Tensor,
    index_weight: Tensor,
    index_k: IndexKeys,
    slot_table: Tensor,
    query_row: Tensor,
    query_position: Tensor,
    topk: int,
    *,
    max_tokens: int | None = None,
    one_each: bool | None = None,
    zeros: Tensor | None = None,
    kernels: Kernels = "auto",
) -> Tensor:
    """Places that each query attends to: [T, topk] int32, ascending, padded with -1. Exact and deterministic.

    Score of place s: ``sum_h index_weight[t, h] * relu(index_q[t, h] . key[s])`` (times the key's scale) in float32,
    for ``index_q`` [T, H, D] and ``index_weight`` [T, H] of :func:`index_queries`. Ties go to the lowest place; a query
    that sees at most ``topk`` places takes them all. ``max_tokens`` is a bound on ``query_position + 1`` that the host
    knows; it saves memory and launches where the table is much wider. ``one_each`` says that every query is of another
    request, as in decoding, or that adjacent ones are mostly of the same; None guesses from T. It changes speed alone.
    ``zeros`` [at least T] int32, zeros again afterwards, save a launch where they serve many calls on one stream.
    """
    if not _triton_wanted(index_q.device, kernels):
        return reference.select(index_q, index_weight, index_k, slot_table, query_row, query_position, topk)
    from keyeloop.model_backend.kernels import fast

    return fast.select(
        index_q, index_weight, index_k, slot_table, query_row, query_position, topk, max_tokens, one_each, zeros
    )


def sparse_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slot_table: Tensor,
    query_row: Tensor,
    positions: Tensor,
    scale: float,
    *,
    max_tokens: int | None = None,
    one_each: bool | None = None,
    kernels: Kernels = "auto",
) -> Tensor:
    """Softmax attention of ``q`` [T, heads, D] over each query's own ``positions`` [T, n] (-1 for none): [T, heads, D].

    ``positions`` are distinct. ``k_cache`` and ``v_cache`` are [slots, kv_heads, D]; one set serves all heads of a
    query. ``scale`` is usually ``D**-0.5``. A query without positions gets zeros. ``max_tokens``, a bound on every
    position + 1 that the host knows, saves memory where the table is much wider; ``one_each`` is as in :func:`select`.
    On Triton many queries of few requests read keys that adjacent ones chose together once: there a key or value that
    is not finite reaches its choosers' neighbours too.
    """
    if not _triton_wanted(q.device, kernels):
        return reference.sparse_attention(q, k_cache, v_cache, slot_table, query_row, positions, scale)
    from keyeloop.model_backend.kernels import fast

    return fast.sparse_attention(q, k_cache, v_cache, slot_table, query_row, positions, scale, max_tokens, one_each)


def _triton_wanted(device: torch.device, kernels: Kernels) -> bool:
    if choose(device, kernels) == "reference":
        return False
    if not _has_triton():
        raise ConfigError(
            "the kernels for a GPU need the package triton, which is not installed here: "
            f"install it, or set {ENVIRONMENT}=reference"
        )
    return True


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None
