"""The kernels of the mixture of experts compile for GPUs that are not here, without spilling, and fit their memory."""

from __future__ import annotations

import os
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path
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
SHARED_BYTES = 232_448
"""What a program may have on an H100 or H200."""
NUMBERS = ("pairs", "place", "block_expert", "used", "counts", "numbers_in", "numbers_out")
SIZES = ("hidden", "inter", "experts", "x_stride", "gate_stride", "share")
CHAINED = {"CHAINED": True}
CHOICE = CHAINED | {"EXPERTS": 128, "TOP": 8, "TOP_WIDE": 8, "ROWS": 16}


@pytest.mark.parametrize("tokens", [1, 8, 64])
def test_routing_compiles(tokens: int, tmp_path: Path) -> None:
    types = {"parts": "*fp32", "weights": "*fp32", "like": "*bf16"}
    product = CHAINED | {"TOKENS": max(16, tokens), "EXPERTS": 128, "DEPTH": 64, "EVEN": True}
    _compiled("moe_route", "score", product, types, 4, 4, tmp_path)
    for alone in (True, False):
        choice = CHOICE | {"RENORMALISE": True, "ALONE": alone, "TOKENS": tokens, "SPLITS": 8}
        _compiled("moe_route", "choose", choice, types, min(16, max(1, tokens // 2)), 3, tmp_path)
    _compiled("moe_route", "order", CHOICE | {"TOKENS": tokens, "CHUNKS": tokens}, types, 8, 3, tmp_path)


@pytest.mark.parametrize("place", range(6))
def test_the_products_compile(place: int, tmp_path: Path) -> None:
    from keyeloop.model_backend.kernels.jit.moe_layer import PLANS

    _compile_plan(PLANS[place][1], "bf16", 90, tmp_path)


@pytest.mark.parametrize(("dtype", "capability"), [("fp32", 90), ("fp16", 90), ("bf16", 80)])
def test_the_products_compile_for_other_types_and_gpus(dtype: str, capability: int, tmp_path: Path) -> None:
    from keyeloop.model_backend.kernels.jit.moe_layer import PLAIN

    _compile_plan(PLAIN, dtype, capability, tmp_path)


def test_the_sum_compiles(tmp_path: Path) -> None:
    _compiled(
        "moe_products",
        "combine",
        {"TOP": 8, "COLUMNS": 2048} | CHAINED,
        {"rows": "*bf16", "weights": "*fp32"},
        8,
        3,
        tmp_path,
    )


def _compile_plan(plan: Any, dtype: str, capability: int, folder: Path) -> None:
    first, second = plan.first, plan.second
    shape = {"CHAINED": capability >= 90, "TOP": 8, "ROWS": plan.rows, "EVEN": True, "JOINED": first.joined}
    for name, tile in (("gate_up", first), ("down", second)):
        cut = {"COLUMNS": tile.columns, "DEPTH": tile.depth, "SWAPPED": tile.swapped, "LASTING": tile.lasting > 0}
        cut["COPIED"] = tile.copied
        types = {
            "x": f"*{dtype}",
            "out": f"tensordesc<{dtype}[{plan.rows}, {tile.columns}]>" if tile.copied else f"*{dtype}",
            "active": f"tensordesc<{dtype}[{plan.rows}, {tile.depth}]>",
            "w13": f"tensordesc<{dtype}[1, {1 + first.joined}, {tile.columns}, {tile.depth}]>",
            "w2": f"tensordesc<{dtype}[1, {tile.columns}, {tile.depth}]>",
        }  # fmt: skip
        _compiled("moe_products", name, shape | cut, types, tile.warps, tile.stages, folder, capability)


def _compiled(
    room: str, name: str, given: dict[str, Any], types: dict[str, str], warps: int, stages: int, folder: Path,
    capability: int = 90,
) -> None:  # fmt: skip
    import importlib

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(importlib.import_module(f"keyeloop.model_backend.kernels.jit.{room}"), name)
    known = {"x": "*bf16", "gate": "*bf16", "out": "*bf16"} | dict.fromkeys(NUMBERS, "*i32") | types
    free = [one for one in kernel.arg_names if one not in given]
    signature = {one: "constexpr" if one in given else known.get(one, "i32") for one in kernel.arg_names}
    constants = {(kernel.arg_names.index(one),): value for one, value in given.items() if one in kernel.arg_names}
    aligned = [one for one in free if signature[one].startswith("*") or one in SIZES]
    attributes = {(kernel.arg_names.index(one),): [["tt.divisibility", 16]] for one in aligned}
    made = triton.compile(
        ASTSource(kernel, signature, constants, attributes),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": warps, "num_stages": stages},
    )
    assert made.metadata.shared <= SHARED_BYTES
    assert _stack_bytes(made.asm["cubin"], folder) == 0


def _stack_bytes(cubin: bytes, folder: Path) -> int:
    """Memory of a thread beside its registers: what spills."""
    import triton

    program = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    file = folder / "kernel.cubin"
    file.write_bytes(cubin)
    said = subprocess.run([program, "-res-usage", file], capture_output=True, text=True, check=True)
    found = re.search(r"STACK:(\d+)", said.stdout + said.stderr)
    assert found is not None
    return int(found[1])
