"""``keyeloop look``: the video tools for a person, without any model."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from keyeloop.agent.look.looking import Looker, Picture
    from keyeloop.agent.look.wishes import Wish
    from keyeloop.runtime.picture import Pixels

LEAST_SIDE_PX = 16
_PROMPT_LINES = 2
"""Lines of a terminal that stay free below a picture."""


def look(
    file: Annotated[Path, typer.Argument(help="A video or an image.", show_default=False)],
    at: Annotated[str | None, typer.Option("--at", metavar="T", help="One frame: 83.5, 1:23 or 1:02:03.5.")] = None,
    start: Annotated[str | None, typer.Option("--from", metavar="A", help="A clip: from here (default: 0).")] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="B", help="A clip: to here (default: the end).")] = None,
    frames: Annotated[
        int | None, typer.Option("--frames", metavar="N", help="Frames of a clip (default: 4) or a sheet (20).")
    ] = None,
    sheet: Annotated[bool, typer.Option("--sheet", help="Frames of the whole video on one picture (default).")] = False,
    zoom: Annotated[
        str | None, typer.Option("--zoom", metavar="X0,Y0,X1,Y1", help="A box in thousandths of the frame at --at.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path(),
    max_side: Annotated[
        int | None, typer.Option(metavar="PX", help="Shrink pictures to this (default: source size, sheets 2048).")
    ] = None,
    show: Annotated[
        bool | None,
        typer.Option(
            "--show/--no-show",
            help="Draw in the terminal (default: where kitty or iTerm2 is known).",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Look at frames of a video, or at an image, without a model: PNG files, with the addresses a model gets."""
    from keyeloop.agent.look.looking import Looker
    from keyeloop.agent.look.picture_files import require_folder
    from keyeloop.agent.look.wishes import Wish, read_box, read_moment, require_sense
    from keyeloop.runtime.errors import InputError
    from keyeloop.tools.video.decoder import Decoder

    wish = Wish(
        None if at is None else read_moment(at, "--at"),
        None if start is None else read_moment(start, "--from"),
        None if end is None else read_moment(end, "--to"),
        frames,
        sheet,
        None if zoom is None else read_box(zoom),
    )
    require_sense(wish)
    if max_side is not None and max_side < LEAST_SIDE_PX:
        raise InputError(f"--max-side {max_side} is too small: give at least {LEAST_SIDE_PX} px")
    if show and as_json:
        raise InputError("--show draws where --json prints its object: leave out one of them")
    require_folder(out)
    with Decoder() as decoder:
        looker = Looker(file, decoder)
        printer = _Printer(looker, out, show, as_json)
        _look(looker, wish, max_side, printer)
    if as_json:
        note = {"note": looker.note} if looker.note else {}
        print(json.dumps({"source": asdict(looker.source), **note, **printer.told}))
    return 0


def _look(looker: Looker, wish: Wish, max_side: int | None, printer: _Printer) -> None:
    from keyeloop.agent.look.looking import fitted

    moments = looker.moments(wish)
    if wish.box is not None:
        printer.picture(looker.crop(None if moments is None else moments[0], wish.box, max_side), wish)
    elif moments is not None and wish.wants_sheet:
        printer.sheet(looker, moments, max_side)
    else:
        for picture in looker.frames(moments, fitted(looker.size, max_side)):
            printer.picture(picture, wish)


class _Printer:
    """Saves pictures and tells of each: in a line and, where it is wanted and possible, drawn; or for one object."""

    def __init__(self, looker: Looker, folder: Path, show: bool | None, as_json: bool) -> None:
        from keyeloop.agent.look.terminal import protocol_of

        self._source, self._note, self._folder, self._as_json = looker.source, looker.note, folder, as_json
        known = protocol_of(os.environ)
        wanted = known is not None if show is None else show
        self._protocol = (known or "blocks") if wanted and not as_json and sys.stdout.isatty() else None
        self.told: dict[str, Any] = {"pictures": [], "sheet": None}

    def picture(self, picture: Picture, wish: Wish) -> None:
        from keyeloop.agent.look.picture_files import picture_name, save_picture, time_mark

        view = picture.view
        marks = [] if view.time_s is None else [time_mark(view.time_s)]
        if wish.box is not None:
            marks += ["box", *(f"{side:g}" for side in wish.box)]
        path = save_picture(self._folder, picture_name(Path(self._source.path), *(marks or ["whole"])), picture.pixels)
        self._tell(picture, path, _size(picture.pixels))
        self._draw(picture.pixels)

    def sheet(self, looker: Looker, moments: tuple[float, ...], max_side: int | None) -> None:
        from keyeloop.agent.look.picture_files import picture_name, save_picture
        from keyeloop.agent.wording import clean, counted

        made = looker.sheet(moments, max_side)
        path = save_picture(self._folder, picture_name(Path(self._source.path), "sheet"), made.pixels)
        for index, frame in enumerate(made.frames):
            left, top = made.plan.corner(index)
            self._tell(frame, None, {"left": left, "top": top, **_size(frame.pixels)})
        size = _size(made.pixels)
        self.told["sheet"] = {"path": str(path), **size}
        if not self._as_json:
            print(f"{counted(len(made.frames), 'frame')}, {size['width']}x{size['height']}, in {clean(str(path))}")
        self._draw(made.pixels)

    def _tell(self, picture: Picture, path: Path | None, place: dict[str, int]) -> None:
        from keyeloop.agent.wording import clean, source_words
        from keyeloop.runtime.moments import format_time

        if not self._as_json and not self.told["pictures"]:
            print(source_words(self._source) + (f"\n{self._note}" if self._note else ""))
        view, box = picture.view, picture.view.region
        self.told["pictures"].append(
            {
                "handle": view.handle,
                "parent": view.parent,
                "time_s": view.time_s,
                "region": asdict(box),
                "text": picture.text,
                "path": None if path is None else str(path),
                **place,
            }
        )
        if not self._as_json:
            when = "" if view.time_s is None else f" ({format_time(view.time_s)})"
            where = "" if path is None else f", in {clean(str(path))}"
            print(f"{picture.text}{when}, box {box.x0:.0f},{box.y0:.0f} to {box.x1:.0f},{box.y1:.0f} px{where}")

    def _draw(self, pixels: Pixels) -> None:
        from keyeloop.agent.look.terminal import drawn

        if self._protocol is not None:
            columns, lines = shutil.get_terminal_size()
            text = drawn(pixels, self._protocol, columns, max(1, lines - _PROMPT_LINES))
            sys.stdout.flush()
            sys.stdout.buffer.write(text.encode())
            sys.stdout.buffer.flush()


def _size(pixels: Pixels) -> dict[str, int]:
    return {"width": pixels.shape[1], "height": pixels.shape[0]}
