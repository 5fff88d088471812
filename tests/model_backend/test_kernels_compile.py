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
CHOICE = ROOM | {"LEAST": 0, "FILL": 1024}
ATTENTION = {"KV_HEADS": 4, "GROUP": 8, "DIM": 128, "DIM_WIDE": 128}
SCORING = {"HEADS": 16, "HEADS_WIDE": 16, "DIM": 64, "DIM_WIDE": 64}
GATHER = {"GROUP_WIDE": 16, "LOOK": 1024, "APART": True, "K_SLOT": 512, "V_SLOT": 512}
UNION = {"TILE": 4096, "PIECE": 2048, "PAD": 128}
LISTS = {
    "slots": "*i32",
    "masks": "*u8",
    "lengths": "*i32",
    "words": "*i32",
    "listed": "*i32",
    "most": "fp32",
    "scale": "fp32",
}
CASES: dict[str, tuple[str, str, dict[str, Any], dict[str, str], int]] = {
    "gates": ("gate", "set_gates", ROOM | {"SAMPLE": 8192, "STEP": 32, "PACKED": False}, SELECTION, 16),
    "gates, sampled": ("gate", "set_gates", ROOM | {"SAMPLE": 2048, "STEP": 32, "PACKED": True}, SELECTION, 4),
    "marked": ("gate", "mark_passing", {"BLOCK": 4096}, SELECTION, 4),
    "listed": ("gate", "list_passing", ROOM | {"WORDS": 2048}, {}, 4),
    "chosen": ("gate", "choose", CHOICE | {"ALL": False, "LISTED": False, "MOST": 4096}, SELECTION, 8),
    "chosen of all": ("gate", "choose", CHOICE | {"ALL": True, "LISTED": False, "MOST": 8192}, SELECTION, 16),
    "chosen of listed": ("gate", "choose", CHOICE | {"ALL": False, "LISTED": True, "MOST": 8192}, SELECTION, 16),
    "first digit": ("radix", "count_digits", {"PASS": 0, "BLOCK": 2048}, SELECTION, 8),
    "last digit": ("radix", "count_digits", {"PASS": 3, "BLOCK": 2048}, SELECTION, 8),
    "tally": ("radix", "tally", {"BLOCK": 2048}, SELECTION, 8),
    "missed": ("radix", "select_missed", {"BLOCK": 2048}, SELECTION, 8),
    "written": ("radix", "write_chosen", {"SHARED": True, "MOST": 64, "BLOCK": 2048}, SELECTION, 8),
    "gathered keys": ("attention", "_attend", ATTENTION | GATHER | {"KEYS": 32, "SHARED": False, "BLOCK": 0},
                      {"scale": "fp32", "out": "*bf16", "taken": "*i32"}, 1),
    "blocks without a list": ("attention", "_attend", ATTENTION | GATHER | {"KEYS": 32, "SHARED": False, "BLOCK": 8},
                              {"scale": "fp32", "out": "*bf16", "taken": "*i32"}, 1),
    "decode": ("attention", "_attend", ATTENTION | GATHER | {"KEYS": 64, "SHARED": True, "BLOCK": 0},
               {"scale": "fp32", "out": "*fp32", "taken": "*i32"}, 4),
    "gathered keys, turned": ("attention", "_attend_turned", ATTENTION | GATHER | {"GROUP_WIDE": 8, "KEYS": 32,
                              "SHARED": False, "BLOCK": 8}, {"scale": "fp32", "out": "*bf16", "taken": "*i32"}, 1),
    "decode, turned": ("attention", "_attend_turned", ATTENTION | GATHER | {"GROUP_WIDE": 8, "KEYS": 64,
                       "SHARED": True, "BLOCK": 0}, {"scale": "fp32", "out": "*fp32", "taken": "*i32"}, 4),
    "united, 8": ("union", "_unite", UNION | {"QUERIES": 8, "BITS": 8}, LISTS, 16),
    "united, 16": ("union", "_unite", UNION | {"QUERIES": 16, "BITS": 16},
                   LISTS | {"masks": "*i16", "listed": "*i64"}, 16),
    "guessed": ("union", "_guess", {"QUERIES": 8, "SAMPLE": 16}, LISTS, 4),
    "block of 8": ("union_attention", "_attend_block", ATTENTION | {"GROUP_WIDE": 8, "QUERIES": 8, "KEYS": 64,
                   "APART": True, "K_SLOT": 512, "V_SLOT": 512},
                   LISTS | {"out": "*bf16"}, 4),
    "block of 16": ("union_attention", "_attend_block", ATTENTION | {"GROUP_WIDE": 8, "QUERIES": 16, "KEYS": 64,
                    "APART": True, "K_SLOT": 512, "V_SLOT": 512},
                    LISTS | {"out": "*bf16", "masks": "*i16"}, 8),
    "rounded": ("rounding", "_spread_and_round", {"BY_SLOT": True, "DIM": 64, "STEPS": 6, "ROWS": 16},
                {"x": "*bf16", "slots": "*i64", "values": "*u8", "rows": "i32", "root": "fp32"}, 4),
    "stored": ("rounding", "_store_rows", {"DIM": 64, "WIDE": 64, "ROWS": 16},
               {"x": "*bf16", "slots": "*i64", "values": "*bf16", "rows": "i32"}, 4),
    "few": ("few", "choose_few", ROOM | {"SPLITS": 64, "BLOCK": 2048, "SAMPLE": 4096, "FILL": 1024, "LANES": 128},
            {"scores": "*fp32", "arrived": "*i32", "listed": "*i32"}, 16),
    "combined": ("attention", "_combine", {"DIM": 128, "DIM_WIDE": 128, "MOST": 32}, {"out": "*bf16"}, 4),
}  # fmt: skip
GLUE = {
    "HEADS": 32, "KV_HEADS": 4, "KV_WIDE": 4, "DIM": 128, "CHUNK": 16,
    "INDEX_HEADS": 16, "INDEX_WIDE": 16, "INDEX_DIM": 64, "STEPS": 6,
}  # fmt: skip
TYPES = {"positions": "*i32", "rows": "*i32", "table": "*i32", "tallies": "*i32", "marks": "*i32",
         "passing": "*i32", "passed": "*i32",
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
    tile = {"QUERIES": 1, "KEYS": 128} if one_each else {"QUERIES": 16, "KEYS": 64}
    given, types = SCORING | tile | {"SCALED": scaled, "NATIVE": scaled}, {"q": code, "keys": code, "scores": "*fp32"}
    for step, gated in ((1, False), (32, False), (1, True)):
        _compiled("scores", "_score", given | {"STEP": step, "GATED": gated}, types, 4)
    if scaled:
        older = given | {"NATIVE": False, "STEP": 1, "GATED": False}
        _compiled("scores", "_score", older, types | {"q": "*u8", "keys": "*u8"}, 4, GPUTarget("cuda", 80, 32))


@pytest.mark.parametrize("scaled", [True, False])
def test_fused_selection_compiles(scaled: bool) -> None:
    code = "*fp8e4nv" if scaled else "*bf16"
    given, types = SCORING | {"SCALED": scaled, "NATIVE": scaled}, {"q": code, "keys": code, "gates": "*fp32"}
    _compiled("fused", "_mark", given | {"QUERIES": 16, "KEYS": 64}, types | {"marks": "*i16"}, 4)
    _compiled("fused", "_score_listed", given | ROOM | {"KEYS": 128}, types | {"found": "*fp32"}, 4)


@pytest.mark.parametrize("rounded", [True, False])
def test_glue_compiles(rounded: bool) -> None:
    import inspect

    from keyeloop.model_backend.kernels.jit import glue

    numbers = dict.fromkeys(("eps", "index_eps", "gate_scale", "root"), "fp32") | {"slots": "*i64"}
    numbers |= {"weight_out": "*fp32", "index_scales": "*fp32" if rounded else "*bf16"}
    pointers = list(inspect.signature(glue.prepare_token.fn).parameters)[:20]
    known = dict.fromkeys(pointers, "*bf16") | numbers
    known |= dict.fromkeys(("index_out", "index_values"), "*u8") if rounded else {}
    _compiled("glue", "prepare_token", GLUE | {"FP8": rounded}, known, 4)


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
