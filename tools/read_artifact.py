"""The tool that reads on in a text which was too long to be shown whole."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Annotated

from pydantic import Field

from keyeloop.runtime.errors import ToolError
from keyeloop.tools.artifacts import FOLDER, artifacts_folder
from keyeloop.tools.base import ToolContext
from keyeloop.tools.decorate import tool

MAX_CHARS = 8_000
_NAME = re.compile(r"[\w-]+\.txt")


@tool(in_order=False)
def read_artifact(
    context: ToolContext, name: str, start: Annotated[int, Field(ge=0)] = 0, find: str | None = None
) -> str:
    """Read on in a text that was too long to be shown whole.

    Args:
        name: as the result named it, artifacts/NAME.txt
        start: first character
        find: read from where this stands instead
    """
    bare = PurePath(name).name
    path = artifacts_folder(context) / bare
    if not _NAME.fullmatch(bare) or not path.is_file():
        known = sorted(file.name for file in artifacts_folder(context).glob("*.txt"))
        raise ToolError(f"there is no {FOLDER}/{bare}; known: {', '.join(known) or 'none yet'}")
    text = path.read_text(encoding="utf-8")
    if find is not None:
        start = text.find(find, start)
        if start < 0:
            raise ToolError(f"{FOLDER}/{bare} does not hold {find!r} there")
    if start >= len(text):
        raise ToolError(f"{FOLDER}/{bare} has {len(text)} characters, and {start} is past its end")
    piece = text[start : start + MAX_CHARS]
    return f"{FOLDER}/{bare}, characters {start} to {start + len(piece)} of {len(text)}:\n{piece}"
