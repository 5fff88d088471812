"""``keyeloop demo-video``: render a board video to ask about."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer


def demo_video(
    out: Annotated[Path, typer.Argument(help="The .mp4 file to write; questions go beside it as .json.")],
    seed: Annotated[int, typer.Option(help="Another seed, another video.")] = 0,
    moments: Annotated[bool, typer.Option(help="Also ask when texts appear.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT.mp4 and OUT.json if they are there.")] = False,
) -> int:
    """Render a fresh board video with questions and answers: OUT.mp4 and OUT.json."""
    from keyeloop.runtime.errors import InputError
    from keyeloop.tools.demo_video.record import record

    there = [str(path) for path in (out, out.with_suffix(".json")) if path.exists()] if not force else []
    if there:
        raise InputError(f"{' and '.join(there)} would be replaced: name another file, or add --force")
    made = record(out, seed, moments=moments)
    print(f"{made.path}: ask it one of the {len(made.questions)} questions in {made.answers_path}, such as")
    for question in made.questions[:1]:
        print(f"  {shlex.join(['keyeloop', 'run', question.text, '--video', str(made.path)])}")
    return 0
