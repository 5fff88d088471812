"""Whole videos in the first message: planned in the model's own arithmetic, decoded before anything is recorded."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from keyeloop.agent.inputs import CheckedTask, Examination
from keyeloop.agent.prompt import task_text
from keyeloop.model_backend.base import Capabilities
from keyeloop.runtime.content import ToolSpec
from keyeloop.runtime.errors import InputError
from keyeloop.runtime.journal import run_media
from keyeloop.runtime.journal.collecting import discard
from keyeloop.runtime.visual_cost import VisualCost
from keyeloop.tools.video.decoder import Decoder
from keyeloop.tools.video.schedule import OVERVIEW, WHOLE, Film, Schedule, schedule_all
from keyeloop.tools.video.whole import Stored, watch_frames

Watch = Literal["none", "overview", "whole"]
"""What the first message shows of the videos: nothing, a few frames of each, or as many as the context has room for."""
FIRST_SHARE = 0.65
"""Of the context, for the first request: a reply may take a quarter, and there must be room for a second look."""
OVERVIEW_SHARE = 1 / 16
"""Of the context, for the frames of an overview."""
BYTES_A_TOKEN = 3
"""For the words of the first request, which are few; those of a frame are counted as one token a byte."""


@dataclass(frozen=True)
class Watching:
    """Moments of a source are being decoded: how many of them are done."""

    source: str
    done: int
    total: int


def check_watch(watch: str) -> Watch:
    """``watch`` itself. Raises InputError for another word."""
    for known in get_args(Watch):
        if watch == known:
            return known  # type: ignore[no-any-return]
    raise InputError(f"watch is {watch!r}: choose one of {', '.join(get_args(Watch))}")


def schedule_videos(
    task: CheckedTask,
    examined: Examination,
    watch: Watch,
    capabilities: Capabilities,
    system: str,
    tools: Sequence[ToolSpec],
    visual_limit: int | None,
) -> dict[str, Schedule]:
    """Which frames of each video the first message shows; empty for ``none``.

    Depends on nothing but the inputs, the words and what the backend says of its model, so that a replay plans the
    same. Raises InputError where not even one frame of every video fits.
    """
    videos = [one for one in examined.inputs if one.facts.kind == "video"]
    if watch == "none" or not videos:
        return {}
    cost, context_tokens = capabilities.cost, capabilities.context_tokens
    pictures = image_tokens(task, cost)
    words = len(system + task_text(task.question, task.sources.values())) + sum(map(_spec_chars, tools))
    budget = int(FIRST_SHARE * context_tokens) - pictures - math.ceil(words / BYTES_A_TOKEN)
    if watch == "overview":
        budget = min(budget, int(OVERVIEW_SHARE * context_tokens))
    if visual_limit is not None:
        budget = min(budget, visual_limit - pictures)
    films = [Film(one.facts.duration_s or 0.0, one.facts.fps, one.facts.width, one.facts.height) for one in videos]
    text = max(_frame_text_tokens(film) for film in films)
    pace = WHOLE if watch == "whole" else OVERVIEW
    made = schedule_all(films, pace, budget, cost, text, as_images=not capabilities.native_video)
    for one, schedule in zip(videos, made, strict=True):
        if not schedule.times_s:
            raise InputError(
                f"not one frame of {one.path} fits the {max(0, budget)} tokens that {capabilities.model} has for "
                f"frames in its first message (context: {context_tokens}); watch fewer videos, or watch='none'"
            )
    return {one.name: schedule for one, schedule in zip(videos, made, strict=True)}


async def watch_videos(
    task: CheckedTask,
    schedules: Mapping[str, Schedule],
    decoder: Decoder,
    run: Path,
    on_progress: Callable[[Watching], None],
) -> dict[str, tuple[Stored, ...]]:
    """Decode every schedule into the media of ``run``, a folder that is gone again where that fails or is cancelled.

    Raises InputError for a video that cannot be decoded.
    """
    media, made = run_media(run), {}
    try:
        for name, schedule in schedules.items():
            total = len(schedule.moments_s)
            on_progress(Watching(name, 0, total))
            made[name] = await watch_frames(
                task.sources[name],
                schedule.moments_s,
                (schedule.size.width, schedule.size.height),
                decoder,
                media,
                lambda done, name=name, total=total: on_progress(Watching(name, done, total)),  # type: ignore[misc]
                key_frames=schedule.key_frames,
            )
    except BaseException:
        discard(run)
        raise
    return made


def image_tokens(task: CheckedTask, cost: VisualCost) -> int:
    """Picture tokens of the image inputs."""
    stills = (source for source in task.sources.values() if source.kind == "image")
    return sum(cost.image(source.width, source.height).tokens for source in stills)


def _frame_text_tokens(film: Film) -> int:
    """At most: its handle and time in the list of frames, and its time once more before its picture."""
    time = f"{film.duration_s:.1f}"
    return len(f", f{WHOLE.most_frames * 2} at {time} s") + len(f"<{time}")


def _spec_chars(tool: ToolSpec) -> int:
    return len(json.dumps([tool.name, tool.description, dict(tool.parameters)]))
