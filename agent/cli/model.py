"""``keyeloop model``: what a model weighs and where it fits."""

from __future__ import annotations

from typing import Annotated

import typer


def model(
    name: Annotated[
        str, typer.Argument(metavar="NAME_OR_PATH", help="keye-tiny, keye-vl-2.0-30b-a3b, or a checkpoint's folder.")
    ],
) -> int:
    """Sizes of a model, its parameter count, cache bytes a token, and which GPUs hold it. The 30B needs no weights."""
    from rich.console import Console

    from keyeloop.agent.models import needs_local

    with needs_local(f"describing {name}"):
        from keyeloop.model_backend.keye.describe import describe, render_description
    Console().print(render_description(describe(name)))
    return 0
