"""What the model reads beside the pictures.

keye-tiny is trained on these exact words: change them only with a new training.
"""

from __future__ import annotations

from collections.abc import Sequence

from keyeloop.runtime.evidence import Box, View


def clip_text(source_name: str, views: Sequence[View]) -> str:
    """Name every frame of a clip with its time: ``video-1: f1 at 83.0 s, f2 at 84.0 s``."""
    return f"{source_name}: " + ", ".join(f"{view.handle} at {seconds(view.time_s)}" for view in views)


def zoom_text(view: View, box: Box) -> str:
    """Say what a crop shows: ``z1: f1 box 310,200,640,460 at 83.0 s``; a still image has no time."""
    when = "" if view.time_s is None else f" at {seconds(view.time_s)}"
    return f"{view.handle}: {view.parent} box {','.join(f'{side:g}' for side in box)}{when}"


def past_end_text(source_name: str, duration_s: float, start_s: float) -> str:
    """Why a clip that begins after the video cannot be shown."""
    return f"{source_name} ends at {seconds(duration_s)}; {seconds(start_s)} is past its end."


def seconds(time_s: float | None) -> str:
    """Seconds with one decimal, as Keye was trained to read them."""
    return f"{time_s or 0.0:.1f} s"
