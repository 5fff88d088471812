"""Texts too long for a model, kept whole beside the run's record."""

from __future__ import annotations

import os
from pathlib import Path

from keyeloop.tools.base import ToolContext

FOLDER = "artifacts"
"""Below the run's folder."""


def artifacts_folder(context: ToolContext) -> Path:
    """Where a run keeps them: beside its media."""
    return context.media.root.parent / FOLDER


def keep_text(text: str, tool: str, context: ToolContext) -> str:
    """Write a text under the first free name of its tool (``look_up-1.txt``), never over another; the name."""
    folder = artifacts_folder(context)
    folder.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        name = f"{tool}-{number}.txt"
        try:
            handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            number += 1
            continue
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace", newline="") as file:
            file.write(text)
        return name
