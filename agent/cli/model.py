"""``keyeloop model``: what a model weighs and where it fits."""

from __future__ import annotations

from typing import Annotated

import typer


def model(
    name: Annotated[
        str, typer.Argument(metavar="NAME_OR_PATH", help="keye-tiny, keye-vl-2.0-30b-a3b, or a checkpoint's folder.")
    ],
    quantization: Annotated[
        str, typer.Option(help="Of the weights: none, or fp8, as keyeloop serve takes it.")
    ] = "none",
    indexer: Annotated[str, typer.Option(help="How index keys are kept: exact, or fp8 (smaller).")] = "exact",
) -> int:
    """Sizes of a model, its parameter count, cache bytes a token, and which GPUs hold it. The 30B needs no weights."""
    from rich.console import Console

    from keyeloop.agent.models import needs_local

    with needs_local(f"describing {name}"):
        from keyeloop.model_backend.keye.describe import describe
        from keyeloop.model_backend.sglang.serve.fitting import render_description
        from keyeloop.model_backend.sglang.serve.settings import read_settings
    asked = read_settings(model=name, quantization=quantization, index=indexer)
    Console().print(render_description(describe(name), quantization=asked.quantization, index=asked.index))
    return 0
