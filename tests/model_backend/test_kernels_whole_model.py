"""The model that is timed whole is the model: its kernels' side against the torch reference, and its program run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from statistics import mean

import pytest
import torch
from torch import Tensor

from benchmarks.kernels.whole_choices import choices
from benchmarks.kernels.whole_layers import Dense, Memory, Model, Step, dense_attention, small_config
from keyeloop.model_backend.kernels import ops
from keyeloop.model_backend.kernels.unions import mean_overlap
from keyeloop.model_backend.keye.decoder import AttentionMode
from keyeloop.model_backend.keye.indexer import IndexerMode
from keyeloop.model_backend.keye.random_weights import random_model

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
INTERPRETED = find_spec("triton") is not None and os.environ.get("TRITON_INTERPRET") == "1"
SEED, PROMPT, DECODED, ROOM = 3, 75, 4, 128
CHUNKS = (32, 32, 11)
SIDES: tuple[ops.Kernels, ...] = ("triton", "reference")


def through_kernels(
    ids: Tensor,
    mode: IndexerMode,
    dense: Dense | None = None,
    *,
    chunks: tuple[int, ...] = CHUNKS,
    dtype: torch.dtype = torch.float64,
    kernels: ops.Kernels = "reference",
) -> tuple[Tensor, Tensor]:
    """Hidden states of a prompt read in chunks and of tokens after it one by one; logits of the last."""
    model = Model(small_config(), SEED, dtype, CPU, ROOM)
    memory = Memory.of(small_config(), 2 * ROOM, mode, dtype, CPU)
    slots = torch.arange(ROOM, dtype=torch.int32) if dense else memory.slots[-ROOM:]
    found, start = [], 0
    for tokens in (*chunks, *[1] * DECODED):
        stop, alone = start + tokens, tokens == 1
        positions = torch.arange(start, stop, dtype=torch.int32)
        turns = model.turned(positions.long() if alone else slice(start, stop))
        step = Step(slots.unsqueeze(0), torch.zeros_like(positions), positions, slots[start:stop], *turns,
                    one_each=alone, max_tokens=stop if dense or not alone else None, dense=dense,
                    kernels=kernels)  # fmt: skip
        found.append(model.forward(ids[start:stop], step, memory))
        start = stop
    return torch.cat(found), model.logits(found[-1])


@pytest.mark.parametrize(
    ("attends", "mode", "dense"), [("sparse", "exact", None), ("sparse", "fp8", None), ("dense", "exact", "torch")]
)
def test_hidden_states_are_those_of_the_reference(
    attends: AttentionMode, mode: IndexerMode, dense: Dense | None
) -> None:
    torch.manual_seed(SEED)
    ids = torch.randint(small_config().vocab_size, (PROMPT + DECODED,))
    reference = random_model(small_config(), SEED, dtype=torch.float64)
    reference.indexer_mode = mode
    places, cache = torch.arange(len(ids)).expand(3, -1), reference.new_cache()
    with torch.inference_mode():
        found, logits = through_kernels(ids, mode, dense)
        embedded = reference.embed(ids)
        pieces = [slice(0, PROMPT), *(slice(n, n + 1) for n in range(PROMPT, len(ids)))]
        expected = torch.cat(
            [reference.model(embedded[piece], places[:, piece], cache, attends, mode) for piece in pieces]
        )
        expected_logits = reference.lm_head(reference.model.norm(expected[-1:]))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(logits, expected_logits, rtol=1e-6, atol=1e-6)


@pytest.mark.triton
@pytest.mark.skipif(not INTERPRETED, reason="needs the package triton and TRITON_INTERPRET=1")
def test_triton_computes_the_same_model() -> None:
    torch.manual_seed(SEED)
    chunks = (32, 11)
    ids = torch.randint(small_config().vocab_size, (sum(chunks) + DECODED,))
    with torch.inference_mode():
        (found, logits), (expected, expected_logits) = (
            through_kernels(ids, "exact", chunks=chunks, dtype=torch.float32, kernels=kernels) for kernels in SIDES
        )
    assert bool(((found - expected).norm(dim=1) < 1e-5 * expected.norm(dim=1)).all())
    torch.testing.assert_close(logits, expected_logits, rtol=1e-4, atol=1e-4)


def test_dense_attention_joins_both_parts() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(5, 4, 8).double(), torch.randn(40, 2, 8).double(), torch.randn(40, 2, 8).double()
    dots = torch.einsum("qhd,khd->hqk", q, k.repeat_interleave(2, 1)) / 8**0.5
    for stop in (5, 23):
        seen = torch.arange(40) <= torch.arange(stop - 5, stop).unsqueeze(1)
        weights = dots.masked_fill(~seen, -torch.inf).softmax(-1)
        expected = torch.einsum("hqk,khd->qhd", weights, v.repeat_interleave(2, 1))
        torch.testing.assert_close(dense_attention(q, k, v, stop, "torch"), expected)


def test_given_choices_are_distinct_seen_and_shared_as_asked() -> None:
    topk, context, chunk = 32, 2048, 256
    torch.manual_seed(0)
    last: dict[float, float] = {}
    for shared in (0.0, 0.5, 0.9, 1.0):
        for start in range(0, context, chunk):
            found, positions = choices(start, chunk, topk, shared, CPU), torch.arange(start, start + chunk)
            assert found.dtype == torch.int32
            for row, position in zip(found.tolist(), positions.tolist(), strict=True):
                if position < topk:
                    assert row == [*range(position + 1), *[-1] * (topk - position - 1)]
                else:
                    assert row == sorted(set(row))
                    assert row[0] >= 0
                    assert row[-1] <= position
        last[shared] = mean([mean_overlap(block) for block in torch.split(found, 16)])
    assert last[0.0] < 0.06
    assert last[0.5] == pytest.approx(0.5, abs=0.08)
    assert last[0.9] == pytest.approx(0.9, abs=0.05)
    assert last[1.0] == 1.0


def test_the_program_gives_every_row_and_keeps_them(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": "src:.", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    program = ["benchmarks/kernels/whole_model.py", "--small", "--seconds", "60", "--out", str(tmp_path)]
    ended = subprocess.run([sys.executable, *program], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = json.loads((tmp_path / "kernels-whole_model.json").read_text())["rows"]
    assert [row["kernel"] for row in rows[:3]] == ["whole model, decode"] * 2 + ["whole model, prefill"]
    variants = " ".join(row["variant"] for row in rows)
    assert all(part in variants for part in ("0% shared", "50%", "80%", "90%", "95%", "chosen by the indexer", "dense"))
    for row in rows:
        assert row["ms"] > 0
        assert row["floor_ms"] > 0
        assert row["error"] < 1e-3
        assert row["layers timed"] == "3 of 3"
        assert row["shape"] in ended.stdout
