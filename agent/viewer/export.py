"""One run as one file: style, script, pictures and a small video inside, nothing fetched from anywhere."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from keyeloop.agent.viewer.app import static_file
from keyeloop.agent.viewer.environment import build_environment
from keyeloop.agent.viewer.opened import OpenedRun, is_written
from keyeloop.agent.viewer.pages import SMALL_PX, run_context
from keyeloop.agent.viewer.pictures import small_picture
from keyeloop.agent.viewer.sources import find_source
from keyeloop.runtime.content import MediaRef
from keyeloop.runtime.errors import InputError, KeyeloopError
from keyeloop.runtime.picture import read_header
from keyeloop.runtime.trajectory import Trajectory

MOST_SOURCE_BYTES = 24_000_000
"""A larger video or picture stays outside: the frames that were looked at stand in for it."""
MOST_PICTURE_BYTES = 64_000_000
"""Of all pictures; where there are more, each is made as small as it is shown."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    size_bytes: int
    told: str
    """What is in it, for people."""


def export_run(folder: Path, to: Path) -> Exported:
    """Write the run in ``folder`` as the page ``to``; another file there is replaced.

    Raises JournalError where the run cannot be read, InputError where the page cannot be written.
    """
    opened = OpenedRun(folder.resolve().name, Trajectory.salvage(folder), is_written(folder))
    embedded = _Embedded(opened)
    script = b"\n".join(static_file(name) for name in ("page.js", "run.js"))
    style = static_file("viewer.css")
    sources = _sources(opened, folder)
    policy = (
        f"default-src 'none'; img-src data:; media-src data:; script-src '{_digest(script)}'; "
        f"style-src '{_digest(style)}'; base-uri 'none'; form-action 'none'"
    )
    page = (
        build_environment()
        .get_template("export.html")
        .render(
            **run_context(opened, sources, all_steps=True) | {"live": False},
            home="#main",
            base="",
            media_base="",
            picture=embedded.picture,
            event_url=None,
            policy=policy,
            style=Markup(style.decode()),
            script=Markup(script.decode()),
        )
    )
    data = page.encode("utf-8", "replace")
    try:
        to.write_bytes(data)
    except OSError as error:
        raise InputError(f"the page {to} cannot be written: {error.strerror}") from None
    named = [source.name for source in opened.run.start.inputs]
    inside = [name for name in named if sources.get(name)]
    video = f"{', '.join(inside)} inside" if inside else "the frames that were looked at in place of its sources"
    smaller = ", made smaller" if embedded.small else ""
    return Exported(len(data), f"{len(opened.media)} pictures{smaller}" + (f", {video}" if named else ""))


class _Embedded:
    """Gives each picture to the page once; where it is shown again, the script takes it from there."""

    def __init__(self, opened: OpenedRun) -> None:
        self._opened = opened
        self._given: set[str] = set()
        self.small = sum(ref.size_bytes for ref in opened.media.values()) > MOST_PICTURE_BYTES

    def picture(self, ref: MediaRef, small: bool = False) -> Markup:
        """Attributes of an ``img``; a picture that is missing or damaged is left out."""
        size = Markup(f'width="{int(ref.width)}" height="{int(ref.height)}"')
        if ref.sha256 in self._given:
            return Markup('data-same="{}" {}').format(ref.sha256, size)
        try:
            data = self._opened.run.media.read(ref.sha256)
            mime = read_header(data).mime
            if self.small and ref.width > SMALL_PX:
                data, mime = small_picture(data, SMALL_PX), "image/jpeg"
        except KeyeloopError:
            return size
        self._given.add(ref.sha256)
        return Markup('data-picture="{}" src="{}" {}').format(ref.sha256, _data_url(data, mime), size)


def _sources(opened: OpenedRun, folder: Path) -> dict[str, str]:
    """The files of sources that are here, unchanged and small enough, as addresses that hold them."""
    urls = {}
    for source in opened.run.start.inputs:
        found = find_source(source, folder, folder.resolve().parent)
        if found and found[0].stat().st_size <= MOST_SOURCE_BYTES:
            urls[source.name] = _data_url(found[0].read_bytes(), found[1])
    return urls


def _data_url(data: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def _digest(data: bytes) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(data).digest()).decode()
