"""What a person wants to see of a file: times, spans and boxes as they are typed, held to what makes sense."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from keyeloop.runtime.errors import InputError
from keyeloop.runtime.evidence import Box
from keyeloop.runtime.moments import parse_time
from keyeloop.tools.video.frames import MAX_FRAMES

_SECONDS = re.compile(r"\d+(?:\.\d*)?|\.\d+")
_TOO_MANY = re.compile(r":[6-9]\d")


@dataclass(frozen=True)
class Wish:
    """What to show of one file; moments in seconds from the first frame, None where nothing was said."""

    at_s: float | None = None
    from_s: float | None = None
    to_s: float | None = None
    frames: int | None = None
    sheet: bool = False
    box: Box | None = None
    """In thousandths of the frame at ``at_s``, or of the image."""

    @property
    def wants_sheet(self) -> bool:
        """Whether a video is shown as a contact sheet; that is also what no wish at all means."""
        return self.sheet or (self.at_s is None and self.from_s is None and self.to_s is None)


def read_moment(text: str, option: str) -> float:
    """Seconds of ``83``, ``83.5``, ``1:23`` or ``1:02:03.5``. Raises InputError that names ``option``."""
    plain = text.strip()
    moment = float(plain) if _SECONDS.fullmatch(plain) else parse_time(plain)
    if moment is None or not math.isfinite(moment) or _TOO_MANY.search(plain):
        raise InputError(f"{option} {text!r} is not a time: write seconds or a clock, such as 83.5, 1:23 or 1:02:03.5")
    return moment


def read_box(text: str) -> Box:
    """``310,200,640,460`` as numbers. Raises InputError for anything but four of them."""
    try:
        x0, y0, x1, y1 = (float(side) for side in text.split(","))
    except ValueError:
        raise InputError(
            f"--zoom {text!r} is not a box: write X0,Y0,X1,Y1 in thousandths of the frame, such as 310,200,640,460"
        ) from None
    return x0, y0, x1, y1


def require_sense(wish: Wish) -> None:
    """Raises InputError for wishes that exclude each other, a reversed span, or a number of frames out of range."""
    if wish.at_s is not None and (wish.sheet or wish.from_s is not None or wish.to_s is not None):
        raise InputError("--at is one frame, --from and --to are a clip, --sheet is an overview: choose one of them")
    if wish.box is not None and (wish.sheet or wish.from_s is not None or wish.to_s is not None):
        raise InputError("--zoom cuts a box out of one frame: give its time with --at")
    if wish.frames is not None and wish.at_s is not None:
        raise InputError("--at is one frame: leave out --frames, or give a span with --from and --to")
    if wish.frames is not None and not 1 <= wish.frames <= MAX_FRAMES:
        raise InputError(f"--frames {wish.frames} is out of range: ask for 1 to {MAX_FRAMES}")
    if wish.to_s is not None and wish.from_s is not None and wish.to_s < wish.from_s:
        raise InputError(f"--to {wish.to_s:g} is before --from {wish.from_s:g}: give the earlier time as --from")
