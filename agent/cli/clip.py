"""``keyeloop clip``: cut a playable file out of a video."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer


def clip(
    video: Annotated[Path, typer.Argument(help="The video to cut from.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="The .mp4 file to write.", show_default=False)],
    start: Annotated[str, typer.Option("--from", metavar="A", help="Begin here: 83.5, 1:23 or 1:02:03.5.")] = "0",
    end: Annotated[str | None, typer.Option("--to", metavar="B", help="End here (default: the end).")] = None,
    encode: Annotated[bool, typer.Option("--encode", help="Encode anew, even where copying shows the same.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Write the frames on screen from A until B to an mp4, with their sound; copied bit by bit where that is exact."""
    from keyeloop.agent.look.wishes import read_moment
    from keyeloop.agent.wording import clean, counted
    from keyeloop.runtime.moments import format_time
    from keyeloop.tools.video.excerpt import cut_clip

    start_s, end_s = read_moment(start, "--from"), None if end is None else read_moment(end, "--to")
    made = cut_clip(video, start_s, end_s, out, copy=not encode, force=force)
    if as_json:
        print(json.dumps({**asdict(made), "path": str(made.path)}))
        return 0
    how = "copied" if made.copied else "encoded anew"
    sound = "with sound" if made.sound else "without sound"
    span = f"{format_time(made.start_s)} to {format_time(made.end_s)}"
    print(f"{clean(str(made.path))}: {counted(made.frames, 'frame')}, {span}, {how}, {sound}")
    return 0
