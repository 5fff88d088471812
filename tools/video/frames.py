"""Frames and crops of declared inputs as content parts: decoded in the child, stored, each with its address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from keyeloop.runtime.content import Image, Video
from keyeloop.runtime.errors import InputError, ToolError
from keyeloop.runtime.evidence import Region, Source, View
from keyeloop.runtime.views import handle_of
from keyeloop.tools.base import ToolContext
from keyeloop.tools.confined.errors import Unusable
from keyeloop.tools.video.decoder import Cut, Decoder
from keyeloop.tools.video.wording import clip_text

STATE_KEY = "video"
"""Where ``ToolContext.state`` keeps the run's decoder. Put one there to share the child that examined the inputs."""
_TURN_KEY = "video.turn"
MAX_FRAMES = 512


def decoder_of(context: ToolContext) -> Decoder:
    """The run's decoder; made at the first call."""
    if STATE_KEY not in context.state:
        context.state[STATE_KEY] = Decoder()
    decoder: Decoder = context.state[STATE_KEY]
    return decoder


def close_decoder(context: ToolContext) -> None:
    """End the run's decoder, if there is one; idempotent."""
    decoder = context.state.pop(STATE_KEY, None)
    if isinstance(decoder, Decoder):
        decoder.close()


def source_of(context: ToolContext, view: View) -> Source:
    """What a view was cut from: a declared input, or a picture that code drew or a page showed. Raises ToolError."""
    handle = None if view.source in context.inputs else handle_of(view.source)
    if handle is None:
        return find_source(context, view.source)
    whole = context.views.find(handle).region
    path = str(context.media.path(view.source_sha256))
    return Source(view.source, "image", view.source_sha256, path, round(whole.width), round(whole.height))


@asynccontextmanager
async def turn(context: ToolContext) -> AsyncIterator[None]:
    """Hold while decoding and minting: calls made in parallel get their handles in the order of the calls."""
    async with context.state.setdefault(_TURN_KEY, asyncio.Lock()):
        yield


def find_source(context: ToolContext, name: str, kind: str | None = None) -> Source:
    """The declared input called ``name``; ToolError names the known ones."""
    source = context.inputs.get(name)
    if source is not None and kind in (None, source.kind):
        return source
    known = ", ".join(known.name for known in context.inputs.values() if kind in (None, known.kind)) or "none"
    what = kind or "input"
    raise ToolError(f"there is no {what} {name!r}; known {what}s: {known}")


async def cut(
    context: ToolContext,
    source: Source,
    times_s: Sequence[float] | None,
    region: Region,
    width: int,
    height: int,
    *,
    key_frames: bool = False,
) -> tuple[Cut, ...]:
    """As :meth:`Decoder.cut`, off the event loop. Cancelling it stops the decoding. Raises ToolError."""
    decoder = decoder_of(context)
    try:
        return await asyncio.to_thread(decoder.cut, source.path, times_s, region, width, height, key_frames=key_frames)
    except Unusable as error:
        raise ToolError(f"{source.name} {error}") from None
    except asyncio.CancelledError:
        decoder.stop()
        raise


async def clip_words(context: ToolContext, source: Source, views: Sequence[View]) -> str:
    """Names every frame with its time; where times are counted, a second line says so. Raises ToolError."""
    try:
        note = await asyncio.to_thread(decoder_of(context).note, source.path)
    except Unusable as error:
        raise ToolError(f"{source.name} {error}") from None
    return clip_text(source.name, views) + (f"\n{source.name}: {note}" if note else "")


async def look(context: ToolContext, source: Source, start_s: float, end_s: float, max_frames: int) -> Video:
    """Frames of a video evenly spaced from ``start_s`` to ``end_s`` inclusive, distinct, with their true times.

    At most ``max_frames``, fewer where the context's visual budget or the video has no more. Raises ToolError.
    """
    wanted = 1 if start_s == end_s else min(max_frames, MAX_FRAMES)
    async with turn(context):
        try:
            plan = context.cost.clip(source.width, source.height, wanted, context.visual_budget_tokens)
        except InputError as error:
            raise ToolError(f"{source.name} cannot be shown: {error}") from None
        if plan.frames < 1:
            raise ToolError(
                f"no frame fits the {context.visual_budget_tokens} picture tokens that are left; answer now"
            )
        times: Sequence[float] = spaced(start_s, end_s, plan.frames)
        cuts = await cut(context, source, times, source.whole, plan.size.width, plan.size.height)
        if len(cuts) < plan.frames:  # the video has fewer frames there, so each may be larger
            larger = context.cost.clip(source.width, source.height, len(cuts), context.visual_budget_tokens)
            if larger.size != plan.size:
                times = [one.time_s for one in cuts if one.time_s is not None]
                cuts = await cut(context, source, times, source.whole, larger.size.width, larger.size.height)
        stored = await asyncio.to_thread(lambda: [context.media.put_image(one.pixels) for one in cuts])
        views = [context.views.frame(source.name, source.sha256, one.time_s, source.whole) for one in cuts]
        return Video(tuple(Image(media, view) for media, view in zip(stored, views, strict=True)))


def spaced(start_s: float, end_s: float, count: int) -> tuple[float, ...]:
    """``count`` moments from ``start_s`` to ``end_s``, both included; one moment is the start."""
    if count == 1:
        return (start_s,)
    return tuple(start_s + (end_s - start_s) * step / (count - 1) for step in range(count))
