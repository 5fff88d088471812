"""Every Triton kernel compiles for GPUs that are not here; the interpreter accepts what the compiler refuses."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

import pytest

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(
        find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") == "1",
        reason="needs the package triton, and TRITON_INTERPRET unset",
    ),
    pytest.mark.filterwarnings("ignore"),  # Triton's own
]
SELECTION = {"gates": "*fp32", "scores": "*fp32"}
ROOM = {"ROOM": 8192}
ATTENTION = {"KV_HEADS": 4, "GROUP": 8, "GROUP_WIDE": 16, "DIM": 128, "DIM_WIDE": 128, "LOOK": 256}
SCORING = {"HEADS": 16, "HEADS_WIDE": 16, "DIM": 64, "DIM_WIDE": 64}
CASES: dict[str, tuple[str, str, dict[str, Any], dict[str, str], int]] = {
    "gates": ("gate", "set_gates", ROOM | {"SAMPLE": 8192}, SELECTION, 16),
    "passing counted": ("gate", "count_passing", {"BLOCK": 2048}, SELECTION, 8),
    "passing gathered": ("gate", "gather_passing", ROOM | {"SHARED": False, "MOST": 64, "BLOCK": 1024}, SELECTION, 4),
    "gathered, shared": ("gate", "gather_passing", ROOM | {"SHARED": True, "MOST": 64, "BLOCK": 2048}, SELECTION, 8),
    "chosen": ("gate", "choose", ROOM | {"ALL": False, "FILL": 1024}, SELECTION, 8),
    "chosen of all": ("gate", "choose", ROOM | {"ALL": True, "FILL": 1024}, SELECTION, 8),
    "first digit": ("radix", "count_digits", {"GATED": False, "PASS": 0, "BLOCK": 2048}, SELECTION, 8),
    "last digit": ("radix", "count_digits", {"GATED": True, "PASS": 3, "BLOCK": 2048}, SELECTION, 8),
    "tally": ("radix", "tally", {"GATED": True, "BLOCK": 2048}, SELECTION, 8),
    "written": ("radix", "write_chosen", {"GATED": False, "SHARED": True, "MOST": 64, "BLOCK": 2048}, SELECTION, 8),
    "prefill": ("attention", "_attend", ATTENTION | {"KEYS": 32, "SHARED": False},
                {"scale": "fp32", "out": "*bf16"}, 1),
    "decode": ("attention", "_attend", ATTENTION | {"KEYS": 64, "SHARED": True}, {"scale": "fp32", "out": "*fp32"}, 4),
    "rounded": ("rounding", "_spread_and_round", {"BY_SLOT": True, "DIM": 64, "STEPS": 6, "ROWS": 16},
                {"x": "*bf16", "slots": "*i64", "values": "*u8", "rows": "i32", "root": "fp32"}, 4),
    "stored": ("rounding", "_store_rows", {"DIM": 64, "WIDE": 64, "ROWS": 16},
               {"x": "*bf16", "slots": "*i64", "values": "*bf16", "rows": "i32"}, 4),
    "combined": ("attention", "_combine", {"DIM": 128, "DIM_WIDE": 128, "MOST": 32}, {"out": "*bf16"}, 4),
}  # fmt: skip
TYPES = {"positions": "*i32", "rows": "*i32", "table": "*i32", "tallies": "*i32", "passing": "*i32", "passed": "*i32",
         "counts": "*i32", "out": "*i32", "q": "*bf16", "k": "*bf16", "v": "*bf16", "parts": "*fp32",
         "peaks": "*fp32", "sums": "*fp32", "weights": "*fp32", "scales": "*fp32"}  # fmt: skip


@pytest.mark.parametrize("name", list(CASES))
def test_compiles(name: str) -> None:
    _compiled(*CASES[name])


@pytest.mark.parametrize("one_each", [True, False])
@pytest.mark.parametrize("scaled", [True, False])
def test_scores_compile(scaled: bool, one_each: bool) -> None:
    from triton.backends.compiler import GPUTarget

    code = "*fp8e4nv" if scaled else "*bf16"
    tile = {"QUERIES": 1, "KEYS": 128} if one_each else {"QUERIES": 16, "KEYS": 128}
    given = SCORING | tile | {"SCALED": scaled, "NATIVE": scaled}
    _compiled("scores", "_score", given, {"q": code, "keys": code, "scores": "*fp32"}, 4)
    if scaled:
        older = SCORING | tile | {"SCALED": True, "NATIVE": False}
        _compiled(
            "scores", "_score", older, {"q": "*u8", "keys": "*u8", "scores": "*fp32"}, 4, GPUTarget("cuda", 80, 32)
        )


def _compiled(
    room: str, name: str, given: dict[str, Any], types: dict[str, str], warps: int, target: Any = None
) -> None:
    import importlib

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(importlib.import_module(f"keyeloop.model_backend.kernels.jit.{room}"), name)
    known = TYPES | types
    signature = {one: "constexpr" if one in given else known.get(one, "i32") for one in kernel.arg_names}
    constants = {(kernel.arg_names.index(one),): value for one, value in given.items()}
    source = ASTSource(kernel, signature, constants)
    made = triton.compile(source, target=target or GPUTarget("cuda", 90, 32), options={"num_warps": warps})
    assert made.asm["cubin"]
