"""Looking without a model: which moments a person asked for, and the pictures of them, with the model's addresses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from keyeloop.agent.look.wishes import Wish
from keyeloop.runtime.errors import InputError, ToolError
from keyeloop.runtime.evidence import Box, Region, Source, View
from keyeloop.runtime.moments import format_time
from keyeloop.runtime.picture import Pixels
from keyeloop.runtime.views import ViewBook
from keyeloop.tools.confined.errors import Unusable
from keyeloop.tools.video.clip import DEFAULT_FRAMES
from keyeloop.tools.video.decoder import Cut, Decoder
from keyeloop.tools.video.frames import spaced
from keyeloop.tools.video.probe import open_source
from keyeloop.tools.video.sheet import SheetPlan, draw_sheet, plan_sheet
from keyeloop.tools.video.wording import clip_text, past_end_text, zoom_text
from keyeloop.tools.video.zoom import pixel_region

SHEET_FRAMES = 20
SHEET_SIDE_PX = 2048


@dataclass(frozen=True)
class Picture:
    """One picture as a person gets it: its address, the words the model would read, and its pixels."""

    view: View
    text: str
    pixels: Pixels


@dataclass(frozen=True)
class Sheet:
    """A contact sheet: its frames in order, where each lies, and the pixels of the whole."""

    plan: SheetPlan
    frames: tuple[Picture, ...]
    pixels: Pixels


class Looker:
    """Shows one file to a person through the decoder, wording and addresses of the video tools."""

    def __init__(self, path: Path, decoder: Decoder) -> None:
        """Examines the file. Raises InputError as a run does."""
        found = open_source(path, "video-1", decoder=decoder)
        self.source: Source = replace(found, name=f"{found.kind}-1")
        self.size = self.source.width, self.source.height
        """Of a whole frame, in source pixels."""
        self.note = decoder.note(found.path)
        """What a person should know of its times; empty where the file tells them."""
        self._whole = Region(0, 0, *self.size)
        self._decoder, self._views = decoder, ViewBook()

    def moments(self, wish: Wish) -> tuple[float, ...] | None:
        """The moments to show, ascending; None for an image. Raises InputError for what the file does not have."""
        if self.source.kind == "image":
            _require_no_moments(self.source, wish)
            return None
        duration_s = self.source.duration_s or 0.0
        for asked_s in (wish.at_s, wish.from_s):
            if asked_s is not None and asked_s > duration_s:
                raise InputError(past_end_text(self.source.path, duration_s, asked_s))
        if wish.at_s is not None:
            return (wish.at_s,)
        if wish.box is not None:
            raise InputError("--zoom cuts a box out of one frame: give its time with --at")
        start_s, end_s = wish.from_s or 0.0, duration_s if wish.to_s is None else min(wish.to_s, duration_s)
        count = wish.frames or (SHEET_FRAMES if wish.wants_sheet else DEFAULT_FRAMES)
        return spaced(start_s, end_s, 1 if start_s == end_s else count)

    def frames(self, moments: Sequence[float] | None, size: tuple[int, int]) -> Iterator[Picture]:
        """The frames on screen at ``moments``, each once, resized to ``size``; one at a time, so that memory is small.

        Raises InputError when the file cannot be decoded.
        """
        before: float | None = None
        for moment in moments or (None,):
            one = self._cut(moment, self._whole, size)
            if one.time_s is not None and one.time_s == before:
                continue
            before = one.time_s
            view = self._frame(one.time_s)
            yield Picture(view, _frame_text(self.source, view), one.pixels)

    def sheet(self, moments: Sequence[float], max_side_px: int | None) -> Sheet:
        """The frames at ``moments`` on one picture, labelled with handle and time; at most ``SHEET_SIDE_PX`` a side.

        Raises InputError when that many frames do not fit ``max_side_px``, or the file cannot be decoded.
        """
        side_px = max_side_px or SHEET_SIDE_PX
        plan = self._plan(moments, side_px)
        frames = tuple(self.frames(moments, (plan.frame_width, plan.frame_height)))
        if len(frames) < len(moments):  # the file has no more, so each may be larger
            found = [frame.view.time_s or 0.0 for frame in frames]
            plan = self._plan(found, side_px)
            self._views = ViewBook()
            frames = tuple(self.frames(found, (plan.frame_width, plan.frame_height)))
        return Sheet(plan, frames, draw_sheet(plan, [(_label(frame.view), frame.pixels) for frame in frames]))

    def crop(self, moment: float | None, box: Box, max_side_px: int | None) -> Picture:
        """A box of the frame at ``moment``, cut from the source. Raises InputError for a box that is out of range."""
        time_s = moment if moment is None else self._cut(moment, self._whole, (1, 1)).time_s
        parent = self._frame(time_s)
        try:
            region = pixel_region(parent, box)
        except ToolError as error:
            raise InputError(f"{error} (in thousandths of the frame)") from None
        size = fitted((round(region.width), round(region.height)), max_side_px)
        view = self._views.crop(parent, region)
        return Picture(view, zoom_text(view, box), self._cut(time_s, region, size).pixels)

    def _plan(self, moments: Sequence[float], side_px: int) -> SheetPlan:
        longest = f"f{len(moments)} {format_time(moments[-1])}"
        return plan_sheet(len(moments), self.size, side_px, longest)

    def _frame(self, time_s: float | None) -> View:
        return self._views.frame(self.source.name, self.source.sha256, time_s, self._whole)

    def _cut(self, moment: float | None, region: Region, size: tuple[int, int]) -> Cut:
        try:
            (one,) = self._decoder.cut(self.source.path, None if moment is None else [moment], region, *size)
        except Unusable as error:
            raise InputError(f"{self.source.path} {error}") from None
        return one


def fitted(size: tuple[int, int], max_side_px: int | None) -> tuple[int, int]:
    """A width and height shrunk so that neither is longer than ``max_side_px``; never enlarged."""
    longest = max(size)
    if max_side_px is None or longest <= max_side_px:
        return size
    return max(1, round(size[0] * max_side_px / longest)), max(1, round(size[1] * max_side_px / longest))


def _label(view: View) -> str:
    return f"{view.handle} {format_time(view.time_s or 0.0)}"


def _frame_text(source: Source, view: View) -> str:
    return f"{source.name}: {view.handle}" if view.time_s is None else clip_text(source.name, [view])


def _require_no_moments(source: Source, wish: Wish) -> None:
    given = {
        "--at": wish.at_s is not None,
        "--from": wish.from_s is not None,
        "--to": wish.to_s is not None,
        "--frames": wish.frames is not None,
        "--sheet": wish.sheet,
    }
    named = [option for option, is_given in given.items() if is_given]
    if named:
        raise InputError(f"{source.path} is an image, it has no moments: leave out {' and '.join(named)}")
