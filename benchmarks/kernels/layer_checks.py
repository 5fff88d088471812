"""Checks of the sparse-attention kernels on a GPU against the torch reference; ``layer.py`` runs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from layer_problems import CASES, GPU, HEAD_DIM, HEADS, KV_HEADS, TOPK, Case, Problem, Row

from keyeloop.model_backend.kernels import ops, reference, selecting
from keyeloop.model_backend.kernels.index_keys import IndexKeys
from keyeloop.model_backend.kernels.jit import scores as scoring
from keyeloop.model_backend.kernels.jit import topk as selection
from keyeloop.model_backend.kernels.jit.gate import sample_of
from keyeloop.model_backend.kernels.jit.ordering import sampled_places


def captured(work: Callable[[], Any]) -> tuple[torch.cuda.CUDAGraph, Any]:
    """A CUDA graph of ``work`` and what it writes to."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()
    return graph, result


def check_rounding() -> list[Row]:
    """Stored keys and rounded queries must equal the reference bit for bit."""
    table = []
    for tokens, dim, dtype, size in (
        (1, 64, torch.bfloat16, 1.0), (7, 64, torch.bfloat16, 1.0), (16, 32, torch.bfloat16, 1.0),
        (17, 64, torch.float32, 1.0), (1000, 64, torch.bfloat16, 30.0), (4097, 64, torch.bfloat16, 1e-6),
        (513, 32, torch.float32, 1e4), (333, 64, torch.float16, 0.0),
    ):  # fmt: skip
        keys = (torch.randn(tokens, 3, dim, device=GPU) * size).to(dtype)
        slots = torch.randperm(tokens * 3 + 5, device=GPU)[: tokens * 3]
        differ = 0
        for mode in ("exact", "fp8"):
            memory = []
            for kernels in ("reference", "triton"):
                index = IndexKeys.zeros(tokens * 3 + 5, dim, mode, dtype, GPU)  # type: ignore[arg-type]
                ops.store_index_keys(index, keys.view(-1, dim), slots, kernels=kernels)  # type: ignore[arg-type]
                memory.append(index)
            differ += int((memory[0].values.view(torch.uint8) != memory[1].values.view(torch.uint8)).sum())
            if mode == "fp8":
                differ += int((memory[0].scales != memory[1].scales).sum())  # type: ignore[operator, union-attr]
        gates = torch.randn(tokens, 3, device=GPU)
        one, two = (ops.index_queries(keys, gates, "fp8", kernels=k) for k in ("reference", "triton"))  # type: ignore[arg-type]
        differ += int((one[0].view(torch.uint8) != two[0].view(torch.uint8)).sum() + (one[1] != two[1]).sum())
        name = f"{tokens} x 3 x {dim} {str(dtype)[6:]} * {size:g}"
        table.append({"case": name, "different bytes": differ, "ok": differ == 0})
    return table


def check_topk() -> list[Row]:
    """The same scores must give the same places, whatever their distribution."""
    random = torch.Generator(GPU).manual_seed(7)
    width = 131073
    base = torch.randn(70, width, device=GPU, generator=random)
    narrow = 1.0 + torch.rand(70, width, device=GPU, generator=random) * 0.24
    odd = base.clone()
    odd[:, ::3], odd[:, 1::777], odd[3:5, 2::911], odd[7] = torch.nan, torch.inf, -torch.inf, torch.nan
    zeros = torch.where(base > 3.0, base, torch.where(base > 0, 0.0, -0.0))
    places = torch.arange(width, device=GPU)
    sampled = torch.zeros(width, dtype=torch.bool, device=GPU)
    sampled[sampled_places(width, sample_of(width)[1]).to(GPU)] = True
    cases = {
        "normal": base, "all in one coarse bin": narrow, "all equal": torch.ones_like(base), "mostly +-0": zeros,
        "negative": -base.abs() - 1, "NaN and infinities": odd, "last bits": 1.0 + (base * 50).round() * 2.0**-23,
        "rounded to bfloat16": base.bfloat16().float(), "sample too high": torch.where(sampled, base + 50, base),
        "sample too low": torch.where(sampled, base - 50, base), "falling": base - places * 1e-3,
    }  # fmt: skip
    edges = [0, 1, 63, 2046, 2047, 2048, 2049, 4095, 4096, 16383, 16384, 65536, width - 2, width - 1, -1]
    spread = torch.randint(2048, width, (70 - len(edges),), generator=torch.Generator().manual_seed(1)).tolist()
    positions = torch.tensor(edges + spread, dtype=torch.int32, device=GPU)
    table = []
    for name, scores in cases.items():
        differ = 0
        for topk, rows in ((TOPK, 70), (64, 70), (TOPK, 40), (TOPK, 7), (1, 3)):
            where = positions[:rows] if rows > 7 else positions[-rows:]
            piece = scores[:rows] if rows > 7 else scores[-rows:]
            found = torch.full((rows, topk), -7, dtype=torch.int32, device=GPU)
            selection.top_positions(piece, where, topk, found)
            differ += int((found != reference.top_positions(piece, where + 1, topk)).sum())
        table.append({"case": name, "different places": differ, "ok": differ == 0})
    return table


def check_scores() -> list[Row]:
    """Scores against float64 of the same rounded values, as a part of the bound; both tilings."""
    table = []
    for case in CASES:
        for mode in ("exact", "fp8"):
            problem, worst = Problem(case, mode), 0.0
            for one_each in (True, False):
                out = torch.full((len(problem.rows), problem.table.shape[1]), torch.nan, device=GPU)
                scoring.scores(
                    problem.index_q, problem.weights, problem.index_k, problem.table, problem.rows, problem.positions,
                    0, out, one_each=one_each,
                )  # fmt: skip
                for query in range(0, len(problem.rows), 5):
                    exact, bound = problem.exact_scores(query)
                    if exact.numel():
                        error = (out[query, : exact.numel()].double() - exact).abs() / bound.clamp_min(1e-30)
                        worst = max(worst, float(error.nan_to_num(1e9).max()))
            table.append({"case": case.name, "mode": mode, "error / bound": worst, "ok": worst <= 1})
    return table


def check_select() -> list[Row]:
    """Chosen sets beside the reference's, and whether each difference lies within the bound of the scores."""
    table = []
    for case in CASES:
        for mode in ("exact", "fp8"):
            problem = Problem(case, mode)
            expected, fits, same, total = problem.select(kernels="reference"), True, 0, 0
            for one_each in (True, False):
                found = problem.select(one_each=one_each)
                repeats = all(torch.equal(found, problem.select(one_each=one_each)) for _ in range(5))
                for query in range(0, len(problem.rows), 3):
                    got, want = (x[query][x[query] >= 0].long() for x in (found, expected))
                    fits &= repeats and got.numel() == want.numel() and bool((got.diff() > 0).all())
                    same, total = same + int(torch.isin(got, want).sum()), total + want.numel()
                    exact, bound = problem.exact_scores(query)
                    if exact.numel() > problem.topk:
                        least, out = exact.topk(problem.topk).values[-1], torch.ones_like(exact, dtype=torch.bool)
                        out[got] = False
                        slack = 2 * bound.max()
                        fits &= bool((exact[got] >= least - slack).all() and (exact[out] <= least + slack).all())
            table.append({"case": case.name, "mode": mode, "overlap": same / max(1, total), "ok": fits})
    return table


def check_fused() -> list[Row]:
    """Selection without scores in memory must choose what selection by parts does, with gates that miss as well."""
    table = []
    for mode in ("exact", "fp8"):
        for name in ("normal", "all equal", "a query of NaN", "negative", "whole numbers"):
            problem = Problem(Case("", (131073, 2049, 40000), (24, 17, 40), padding=3), mode)
            if name == "all equal":
                problem.weights[::2] = 0.0
            elif name == "a query of NaN":
                problem.weights[1] = torch.nan
            elif name == "negative":
                problem.weights.abs_().neg_()
            elif name == "whole numbers":
                problem.index_q, problem.weights = (
                    x.float().sign().to(x.dtype) for x in (problem.index_q, problem.weights)
                )
            given = (problem.index_q, problem.weights, problem.index_k, problem.table, problem.rows, problem.positions)
            out, expected = (torch.full((len(problem.rows), TOPK), -7, dtype=torch.int32, device=GPU) for _ in "ab")
            width = problem.table.shape[1]
            selecting.select_by_parts(*given, TOPK, width, expected, one_each=False)
            differ = 0
            for _ in range(3):
                out.fill_(-7)
                selecting.select_fused(*given, TOPK, width, out)
                differ += int((out != expected).any(1).sum())
            table.append({"case": name, "mode": mode, "different rows": differ, "ok": differ == 0})
    return table


def check_attention() -> list[Row]:
    """Attention over the same places: relative error against the reference in float64."""
    table = []
    for case in CASES:
        for dtype, limit in ((torch.bfloat16, 4e-3), (torch.float32, 1e-5)):
            problem = Problem(case, "exact", dtype)
            chosen = problem.select(kernels="reference")
            found = problem.attend(chosen).double()
            repeats = all(torch.equal(found, problem.attend(chosen).double()) for _ in range(5))
            problem.q, problem.k, problem.v = problem.q.double(), problem.k.double(), problem.v.double()
            expected = problem.attend(chosen, kernels="reference")
            error = float((found - expected).norm() / expected.norm())
            empty = float(found[problem.positions < 0].abs().sum())
            ok = error <= limit and repeats and empty == 0
            table.append({"case": case.name, "type": str(dtype)[6:], "relative error": error, "ok": ok})
    return table


def check_dense() -> list[Row]:
    """A prompt of at most ``topk`` tokens must equal dense causal attention."""
    table = []
    for mode in ("exact", "fp8"):
        problem = Problem(Case("", (2048,), (2048,)), mode)
        found = problem.attend(problem.select())
        slots = problem.table[1, :2048].long()
        q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (problem.q, problem.k[slots], problem.v[slots]))
        dense = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).squeeze(0).transpose(0, 1)
        error = float((found.double() - dense.double()).norm() / dense.double().norm())
        table.append({"case": "2048 tokens", "mode": mode, "relative error": error, "ok": error < 6e-3})
    return table


def check_graph() -> list[Row]:
    """A captured decode step must follow positions, rows and slots that change between replays."""
    table = []
    for mode in ("exact", "fp8"):
        problem = Problem(CASES[5], mode)
        graph, (chosen, out) = captured(problem.step)
        ok = True
        for cut in (0, 1, 700, 2100):
            kept = problem.positions.clone()
            problem.positions.sub_(cut).clamp_min_(-1)
            problem.rows[:6] = problem.rows[:6].roll(1)
            problem.positions[:6] = problem.positions[:6].roll(1)
            graph.replay()
            expected = problem.select()
            ok &= torch.equal(chosen, expected) and torch.equal(out, problem.attend(expected))
            problem.positions.copy_(torch.cat((kept[:6].roll(1), kept[6:])))
        table.append({"case": "decode in a CUDA graph", "mode": mode, "ok": ok})
    return table


def check_far_slots() -> list[Row]:
    """Slots whose addresses need 64 bits."""
    slots, topk = 5_000_000, 64
    cache = torch.zeros(slots, KV_HEADS, HEAD_DIM, dtype=torch.bfloat16, device=GPU)
    table = torch.arange(slots - 300, slots, dtype=torch.int32, device=GPU).unsqueeze(0)
    cache[-300:] = torch.randn(300, KV_HEADS, HEAD_DIM, device=GPU, dtype=torch.bfloat16)
    q = torch.randn(4, HEADS, HEAD_DIM, device=GPU, dtype=torch.bfloat16)
    rows, chosen = torch.zeros(4, dtype=torch.int32, device=GPU), torch.arange(topk, dtype=torch.int32, device=GPU)
    arguments = (q, cache, cache, table, rows, chosen.repeat(4, 1), HEAD_DIM**-0.5)
    found, expected = ops.sparse_attention(*arguments), ops.sparse_attention(*arguments, kernels="reference")
    error = float((found.double() - expected.double()).norm() / expected.double().norm())
    return [{"case": "slot 5,000,000", "relative error": error, "ok": error < 4e-3}]
