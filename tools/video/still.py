"""Still pictures: the declared ones, shown when a run begins, and those that untrusted code drew."""

from __future__ import annotations

import asyncio
import tempfile
from typing import Any

from keyeloop.runtime.content import Image, MediaRef
from keyeloop.runtime.errors import InputError, ToolError
from keyeloop.runtime.evidence import Region, Source
from keyeloop.runtime.picture import Pixels, read_header
from keyeloop.runtime.views import PLOT
from keyeloop.runtime.visual_cost import VisualCost
from keyeloop.tools.base import ToolContext
from keyeloop.tools.confined.errors import Unusable
from keyeloop.tools.results import fitting_size, store_exact
from keyeloop.tools.video.decoder import Decoder
from keyeloop.tools.video.frames import decoder_of, turn


def read_still(source: Source, cost: VisualCost, decoder: Decoder) -> Pixels:
    """The picture at the size that the model sees, height x width x 3 of uint8 RGB; blocks while it is decoded.

    Raises InputError for one that is damaged, or too long for its width.
    """
    try:
        size = cost.image(source.width, source.height)
        (one,) = decoder.cut(source.path, None, source.whole, size.width, size.height)
    except Unusable as error:
        raise InputError(f"{source.path} {error}") from None
    return one.pixels


def show_still(source: Source, pixels: Pixels, context: ToolContext) -> Image:
    """Store what :func:`read_still` gave, under a handle of its own (``f1``, ...)."""
    view = context.views.frame(source.name, source.sha256, None, source.whole)
    return Image(context.media.put_image(pixels), view)


async def show_encoded(value: Any, context: ToolContext) -> Any:
    """What a tool returned, with encoded pictures (bytes), also those in a list, replaced by Images; else as it is.

    Raises as :func:`show_untrusted`: the tool is trusted, but who knows where it got its bytes from.
    """
    if isinstance(value, bytes | bytearray):
        return await show_untrusted(bytes(value), context)
    if isinstance(value, list | tuple) and any(isinstance(item, bytes | bytearray) for item in value):
        return [await show_encoded(item, context) for item in value]
    return value


async def show_untrusted(data: bytes, context: ToolContext) -> Image:
    """Store an encoded picture at the model's size, within the budget of one result; decoded in the guarded child.

    Raises InputError for bytes that are no JPEG, PNG or WebP picture, ToolError for a damaged one or one that does not
    fit.
    """
    read_header(data)
    decoder = decoder_of(context)
    async with turn(context):
        try:
            return await asyncio.to_thread(_stored, data, context, decoder)
        except Unusable as error:
            raise ToolError(f"the picture {error}") from None
        except asyncio.CancelledError:
            decoder.stop()
            raise


async def show_drawn(data: bytes, context: ToolContext, kind: str = PLOT) -> Image:
    """As :func:`show_untrusted`, for a picture that code drew: kept whole too, so that it can be zoomed and cited.

    Its view is a source of its own (``p1`` of ``plot-1``; of ``picture-1`` where ``kind`` is ``FETCHED``, for one that
    a page showed); the record of the call that shows it tells where it is from.
    """
    read_header(data)
    decoder = decoder_of(context)
    async with turn(context):
        try:
            shown, whole = await asyncio.to_thread(_stored_whole, data, context, decoder)
        except Unusable as error:
            raise ToolError(f"the picture {error}") from None
        except asyncio.CancelledError:
            decoder.stop()
            raise
        return Image(shown, context.views.own(kind, whole.sha256, Region(0, 0, whole.width, whole.height)))


def _stored_whole(data: bytes, context: ToolContext, decoder: Decoder) -> tuple[MediaRef, MediaRef]:
    """The picture at the model's size, and at its own."""
    with tempfile.NamedTemporaryFile(prefix="keyeloop-picture-") as file:
        file.write(data)
        file.flush()
        facts = decoder.probe(file.name)
        size = fitting_size(facts.width, facts.height, context)
        region = Region(0, 0, facts.width, facts.height)
        (whole,) = decoder.cut(file.name, None, region, facts.width, facts.height)
        (shown,) = decoder.cut(file.name, None, region, size.width, size.height)
    return context.media.put_image(shown.pixels), context.media.put_image(whole.pixels)


def _stored(data: bytes, context: ToolContext, decoder: Decoder) -> Image:
    with tempfile.NamedTemporaryFile(prefix="keyeloop-picture-") as file:
        file.write(data)
        file.flush()
        facts = decoder.probe(file.name)
        size = fitting_size(facts.width, facts.height, context)
        whole = Region(0, 0, facts.width, facts.height)
        (one,) = decoder.cut(file.name, None, whole, size.width, size.height)
    return Image(store_exact(one.pixels, context.media))
