"""keye-tiny knows what it is: on footage unlike the board videos that it was trained on, a run says so."""

from __future__ import annotations

from collections.abc import Mapping

from keyeloop.agent.inputs import CheckedTask
from keyeloop.model_backend.local.folder import EMBEDDED_MODEL
from keyeloop.runtime.errors import ToolError
from keyeloop.runtime.evidence import Source
from keyeloop.runtime.picture import Pixels
from keyeloop.tools.base import ToolContext
from keyeloop.tools.demo_video.likeness import LEAST, SIZE, board_likeness
from keyeloop.tools.video.frames import cut

CODE = "unlike_boards"
"""Of the notice."""


async def doubts(model: str, task: CheckedTask, stills: Mapping[str, Pixels], context: ToolContext) -> str | None:
    """What to tell a person whose footage is nothing for ``model``; None for another model, and where all looks right.

    Looks at the first frame of each video and at the images: some hundredths of a second of processor time.
    """
    if model != EMBEDDED_MODEL:
        return None
    unlike = [source.name for source in task.sources.values() if not await _is_board(source, stills, context)]
    return warning(unlike) if unlike else None


def warning(names: list[str]) -> str:
    """The warning, with the ways to a model for real footage."""
    verb = "look" if len(names) > 1 else "looks"
    return (
        f"{', '.join(names)} {verb} unlike the board videos that {EMBEDDED_MODEL} reads: do not trust what it says. "
        "For real footage name a larger model: --model http://HOST:PORT/v1#NAME (keyeloop serve, llama.cpp, any "
        "OpenAI-compatible server) or --model FOLDER (a Keye checkpoint)"
    )


async def _is_board(source: Source, stills: Mapping[str, Pixels], context: ToolContext) -> bool:
    """Whether the first picture looks like a board; what cannot be decoded is left to the tools to report."""
    if source.kind == "image":
        return source.name not in stills or board_likeness(stills[source.name]) >= LEAST
    try:
        (first,) = await cut(context, source, [0.0], source.whole, *SIZE)
    except ToolError:
        return True
    return board_likeness(first.pixels) >= LEAST
