"""A run's first request before anything is decoded or sent: frames, times, tokens, cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from keyeloop.agent.counting import Counting
from keyeloop.agent.inputs import CheckedTask, Examination, shown_parts
from keyeloop.agent.watching import Watch, check_watch, schedule_videos
from keyeloop.agent.wording import clean, counted, source_words
from keyeloop.model_backend.base import Request
from keyeloop.runtime.budget import Limits
from keyeloop.runtime.content import Image, MediaRef, Message, Text, Video
from keyeloop.runtime.evidence import Source
from keyeloop.runtime.moments import format_time
from keyeloop.runtime.prices import Prices
from keyeloop.runtime.views import ViewBook
from keyeloop.runtime.visual_cost import FrameSize
from keyeloop.tools.toolset import Toolset
from keyeloop.tools.video.schedule import Schedule
from keyeloop.tools.video.whole import Stored, show_frames


@dataclass(frozen=True)
class RequestPlan:
    """What the first request of a run will hold. ``str()`` is for people, :meth:`to_json` for programs."""

    model: str
    watch: Watch
    context_tokens: int
    input_tokens: int
    """Of the whole request: system, tools, frames, pictures, question. Exact where the model is counted exactly (a
    served one is estimated) and frames come at a constant rate; else frames may turn out fewer, never more."""
    visual_tokens: int
    cost: float | None
    """Of this request's input; None without prices."""
    sources: tuple[Source, ...]
    """Not hashed."""
    videos: Mapping[str, Schedule]
    images: Mapping[str, FrameSize]
    note: str = ""
    """What is not known of pictures at this server, or why it is sent none."""

    @property
    def share(self) -> float:
        """Of the context that the request takes, 0 to 1."""
        return self.input_tokens / self.context_tokens

    def to_json(self) -> dict[str, Any]:
        """As one object; times in seconds, sizes in pixels."""
        paths = {source.name: source.path for source in self.sources}
        return {
            "model": self.model,
            "watch": self.watch,
            "context_tokens": self.context_tokens,
            "input_tokens": self.input_tokens,
            "visual_tokens": self.visual_tokens,
            "share": round(self.share, 4),
            "cost": self.cost,
            "videos": [{"name": name, "path": paths[name], **_numbers(plan)} for name, plan in self.videos.items()],
            "images": [
                {"name": name, "path": paths[name], "width": size.width, "height": size.height, "tokens": size.tokens}
                for name, size in self.images.items()
            ],
            "note": self.note,
        }

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        for source in self.sources:
            yield source_words(source)
            if source.name in self.videos:
                yield f"  {_words(self.videos[source.name])}"
            elif source.name in self.images:
                size = self.images[source.name]
                yield f"  shown at {size.width}x{size.height}: {counted(size.tokens, 'token')}"
            else:
                yield "  not shown; left to tools (--watch whole or overview shows it)"
        yield (
            f"first request to {clean(self.model)}: {counted(self.input_tokens, 'token')} "
            f"({self.visual_tokens:,} of pictures), {self.share:.1%} of its context of {self.context_tokens:,}"
        )
        cost = "unknown: no prices are set" if self.cost is None else f"{self.cost:.4g}"
        yield f"estimated cost of its input: {cost}"
        if self.note:
            yield self.note
        yield "no request was sent"


def plan_request(
    examined: Examination,
    watch: str,
    backend: Counting,
    system: str,
    tools: Toolset,
    limits: Limits,
    prices: Prices | None,
) -> RequestPlan:
    """Lay out the first request with empty pictures of the planned sizes, and count it as the backend does.

    Raises InputError where the frames do not fit, or for a ``watch`` that is none.
    """
    task, capabilities, chosen = examined.task(), backend.capabilities(), check_watch(watch)
    schedules = schedule_videos(task, examined, chosen, capabilities, system, tools.specs, limits.visual_tokens)
    stills = {
        source.name: capabilities.cost.image(source.width, source.height)
        for source in task.sources.values()
        if source.kind == "image"
    }
    parts = shown_parts(task, _blank(task, schedules, stills))
    opening = (Message("system", (Text(system),)), Message("user", parts))
    usage = backend.count_tokens(Request(opening, tools.specs))
    return RequestPlan(
        model=capabilities.model,
        watch=chosen,
        context_tokens=capabilities.context_tokens,
        input_tokens=usage.input_tokens,
        visual_tokens=usage.visual_tokens,
        cost=None if prices is None else prices.cost(usage),
        sources=tuple(task.sources.values()),
        videos=schedules,
        images=stills,
    )


def _blank(
    task: CheckedTask, schedules: Mapping[str, Schedule], stills: Mapping[str, FrameSize]
) -> dict[str, Image | Video]:
    """The pictures to be, without pixels, under the handles that they will have."""
    views, shown = ViewBook(), dict[str, Image | Video]()
    for name, plan in schedules.items():
        frames = [Stored(time_s, _empty(plan.size)) for time_s in plan.times_s]
        shown[name] = show_frames(task.sources[name], frames, views)
    for name, size in stills.items():
        source = task.sources[name]
        shown[name] = Image(_empty(size), views.frame(name, source.sha256, None, source.whole))
    return shown


def _empty(size: FrameSize) -> MediaRef:
    return MediaRef("0" * 64, "image/jpeg", 0, size.width, size.height)


def _numbers(plan: Schedule) -> dict[str, Any]:
    return {
        "frames": len(plan.times_s),
        "first_s": plan.times_s[0],
        "last_s": plan.times_s[-1],
        "step_s": round(plan.step_s, 6),
        "key_frames": plan.key_frames,
        "width": plan.size.width,
        "height": plan.size.height,
        "frame_tokens": plan.each_tokens,
        "visual_tokens": plan.visual_tokens,
        "times_s": list(plan.times_s),
    }


def _words(plan: Schedule) -> str:
    """``512 frames, one every 7.0 s, 0:00:00.000 to 0:59:59.960, each 588x336 (252 tokens): 129,024 tokens``."""
    count, first = len(plan.times_s), format_time(plan.times_s[0])
    spread = (
        f"one every {plan.step_s:.3g} s, {first} to {format_time(plan.times_s[-1])}" if count > 1 else f"at {first}"
    )
    each = f"each {plan.size.width}x{plan.size.height} ({counted(plan.each_tokens, 'token')})"
    what = counted(count, "key frame" if plan.key_frames else "frame")
    return f"{what}, {spread}, {each}: {counted(plan.visual_tokens, 'token')}"
