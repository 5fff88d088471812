"""A picture as it travels inside a server: its own bytes and the size at which the model sees it.

Pixels are made of them only where the vision tower needs them. As pixels a frame is twenty times as long, and SGLang
moves each tensor between its processes through a shared memory of its own: 12 ms a frame, measured, and eight seconds
for the frames of an hour, in every turn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from keyeloop.model_backend.keye.preprocess import resize
from keyeloop.model_backend.sglang.plugin.media.fitting import Size
from keyeloop.runtime.picture import Pixels, decode_picture


@dataclass(frozen=True)
class Shown:
    """A picture that was decoded once, so it is sound, and will be decoded again."""

    data: bytes = field(repr=False)
    """The picture's file."""
    size: Size
    """As the model sees it; sides are multiples of 28 pixels."""
    kind: Literal["image", "frame"]
    """How it is resampled, where its own size is another."""
    identity: bytes
    """32 bytes that stand for these pixels and for no others."""

    def pixels(self) -> Pixels:
        """[height, width, 3] uint8 RGB. InputError where the bytes are no sound picture."""
        return resize(decode_picture(self.data), self.size.width, self.size.height, self.kind)


@dataclass(frozen=True)
class ShownClip:
    """Frames of one size, and their times in seconds."""

    frames: tuple[Shown, ...]
    times_s: tuple[float, ...]
