"""Declared still images, as the model is shown them when a run begins."""

from __future__ import annotations

from keyeloop.runtime.content import Image
from keyeloop.runtime.errors import InputError
from keyeloop.runtime.evidence import Source
from keyeloop.runtime.picture import Pixels
from keyeloop.runtime.visual_cost import VisualCost
from keyeloop.tools.base import ToolContext
from keyeloop.tools.video.child.errors import Unusable
from keyeloop.tools.video.decoder import Decoder


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
