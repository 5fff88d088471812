"""What ``keyeloop model`` says that fits is what ``keyeloop serve`` plans, and what the page on serving says."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import pytest
from rich.console import Console

from keyeloop.model_backend.keye.describe import ModelDescription, describe
from keyeloop.model_backend.keye.export import save_folder
from keyeloop.model_backend.sglang.serve.fitting import GIB, TAKEN_BYTES, Fit, fits, render_description
from keyeloop.model_backend.sglang.serve.gpus import Gpu
from keyeloop.model_backend.sglang.serve.memory import IndexMode, Quantization
from keyeloop.model_backend.sglang.serve.room import room_on_gpus
from keyeloop.model_backend.sglang.serve.settings import ServeSettings
from keyeloop.runtime.errors import OperatorError
from tests.model_backend.keye_models import small_model

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"


@cache
def published() -> ModelDescription:
    return describe("keye-vl-2.0-30b-a3b")


@cache
def found(quantization: Quantization = "none", index: IndexMode = "exact") -> dict[tuple[str, int], Fit]:
    return {(fit.gpu, fit.gpus): fit for fit in fits(published(), quantization=quantization, index=index)}


@pytest.mark.parametrize("index", ["exact", "fp8"])
@pytest.mark.parametrize("quantization", ["none", "fp8"])
def test_the_launcher_plans_the_same(quantization: Quantization, index: IndexMode) -> None:
    for (name, count), fit in found(quantization, index).items():
        total = fit.memory_gib * GIB
        idle = [Gpu(number, f"GPU-{number}", name, total, total - TAKEN_BYTES, (9, 0)) for number in range(count)]
        settings = ServeSettings("keye", quantization=quantization, tensor_parallel=count, index=index)
        try:
            room = room_on_gpus(published(), settings, idle)
        except OperatorError:
            assert fit.context_tokens == fit.cache_tokens == 0, (name, count)
        else:
            assert (fit.context_tokens, fit.cache_tokens) == (room.largest_context, room.cache_tokens), (name, count)


def test_eighty_gigabytes_in_both_formats_of_index_keys() -> None:
    assert found()["A100 80GB", 1].context_tokens == 89_664
    assert found(index="fp8")["A100 80GB", 1].context_tokens == 92_224


def test_the_table_of_the_page_on_serving() -> None:
    names = {
        "RTX 4090, 24 GB": "RTX 4090", "RTX 5090, 32 GB": "RTX 5090", "L40S, 45 GB": "L40S",
        "A100 or H100, 80 GB": "H100 80GB", "RTX PRO 6000, 96 GB": "RTX PRO 6000", "H200, B200": "H200",
    }  # fmt: skip
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.read_text().splitlines()
            if line.startswith("|")]  # fmt: skip
    told = {row[0]: row[1:] for row in rows if row[0] in names}
    assert told.keys() == names.keys()
    for row, gpu in names.items():
        here = [found()[gpu, 1], found("fp8")[gpu, 1], found()[gpu, 2], found()[gpu, 4]]
        assert told[row] == [f"{fit.context_tokens:,}" if fit.context_tokens else "no" for fit in here], row


def test_a_group_divides_the_key_heads(tmp_path: Path) -> None:
    save_folder(small_model(), tmp_path)
    assert {fit.gpus for fit in fits(describe(tmp_path))} == {1, 2}, "two key heads cannot be split over four GPUs"


def test_rendered_numbers_can_be_read() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render_description(published(), index="fp8"))
    text = " ".join(console.export_text().split())
    for piece in ("31,122,082,160", "104,448 bytes with exact index keys, 101,568 with fp8 ones", "H200", "too small",
                  "What fits (index keys fp8)", "index keys fp8, 85% of an idle GPU", "262,144 tokens"):  # fmt: skip
        assert piece in text, piece
