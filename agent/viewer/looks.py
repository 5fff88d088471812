"""Where a run looked: every view with its moment, its box, how closely, in which step; laid out as a strip."""

from __future__ import annotations

import math
from dataclasses import dataclass

from keyeloop.runtime.content import MediaRef
from keyeloop.runtime.evidence import Citation, Region, Source, View
from keyeloop.runtime.moments import format_time
from keyeloop.runtime.trajectory import Trajectory

FILM_CELLS = 14
LEAST_ROW_PX, MOST_ROW_PX, MOST_LANES_PX = 2.0, 22.0, 176.0
MARGIN_PX = 12.0
STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
MOST_TICKS = 8


@dataclass(frozen=True)
class Look:
    """One picture that a run was shown."""

    view: View
    media: MediaRef
    group: int
    """Views of one call or message share it; ascending with time."""
    turn: int
    """0 for what the run opened with."""
    closeness: float
    """How many times larger than in the whole picture things are shown; 1 for a whole frame."""

    @property
    def close(self) -> bool:
        """Whether it is a crop."""
        return self.view.parent is not None or self.closeness > 1.001


@dataclass(frozen=True)
class Mark:
    """A look on the strip."""

    look: Look
    x_percent: float
    y_px: float
    radius_px: float


@dataclass(frozen=True)
class Bar:
    """The stretch between the first and the last frame of one call."""

    x_percent: float
    width_percent: float
    y_px: float
    height_px: float


@dataclass(frozen=True)
class Flag:
    """A citation on the strip."""

    citation: Citation
    x_percent: float


@dataclass(frozen=True)
class Strip:
    """A source, and all that was looked at in it. A row is one call; the first is at the top."""

    source: Source
    looks: tuple[Look, ...]
    bars: tuple[Bar, ...]
    marks: tuple[Mark, ...]
    flags: tuple[Flag, ...]
    ticks: tuple[tuple[float, str], ...]
    """Place in percent and label."""
    film: tuple[Look | None, ...]
    """For each of as many equal parts of the source, the look nearest to its middle; None where it never looked."""
    height_px: float


def looks_of(run: Trajectory) -> tuple[Look, ...]:
    """Every picture that was shown, in order; one that was shown again under the same handle once."""
    whole = {source.name: source.whole for source in run.start.inputs}
    found: dict[str, Look] = {}
    for look in run.looks:
        closeness = _closeness(look.region, whole.get(look.source))
        found.setdefault(look.view.handle, Look(look.view, look.media, look.seq, look.turn, closeness))
    return tuple(found.values())


def strips_of(run: Trajectory, looks: tuple[Look, ...]) -> tuple[Strip, ...]:
    """A strip for each declared source; an image has its looks and no place in time."""
    cited = tuple(citation for asked in run.exchanges if asked.end for citation in asked.end.citations)
    return tuple(_strip(source, looks, cited) for source in run.start.inputs)


def _closeness(region: Region, whole: Region | None) -> float:
    if whole is None or region.width <= 0 or region.height <= 0:
        return 1.0
    return max(1.0, min(whole.width / region.width, whole.height / region.height))


def _strip(source: Source, looks: tuple[Look, ...], cited: tuple[Citation, ...]) -> Strip:
    own = tuple(look for look in looks if look.view.source == source.name)
    timed = [(look, look.view.time_s) for look in own if look.view.time_s is not None]
    length_s = source.duration_s or max((at for _, at in timed), default=0.0) or 1.0

    def place(at_s: float) -> float:
        return round(min(max(at_s / length_s, 0.0), 1.0) * 100, 3)

    groups = {group: row for row, group in enumerate(dict.fromkeys(look.group for look, _ in timed))}
    row_px = min(MOST_ROW_PX, max(LEAST_ROW_PX, MOST_LANES_PX / max(1, len(groups))))
    lanes_px = max(MOST_ROW_PX, min(MOST_LANES_PX, row_px * len(groups)))
    pitch_px = lanes_px / max(1, len(groups))

    def middle(group: int) -> float:
        return round(MARGIN_PX + (groups[group] + 0.5) * pitch_px, 1)

    bars = []
    times_of: dict[int, list[float]] = {}
    for look, at in timed:
        times_of.setdefault(look.group, []).append(at)
    for group, times in times_of.items():
        if len(times) > 1 and max(times) > min(times):
            left, right = place(min(times)), place(max(times))
            thick = round(min(8.0, pitch_px), 1)
            bars.append(Bar(left, round(right - left, 3), round(middle(group) - thick / 2, 1), thick))
    marks = tuple(
        Mark(look, place(at), middle(look.group), round(min(9.0, 3.5 + 1.5 * math.log2(look.closeness)), 1))
        for look, at in timed
    )
    flags = tuple(
        Flag(citation, place(citation.time_s))
        for citation in cited
        if citation.source == source.name and citation.time_s is not None
    )
    ticks = _ticks(length_s) if source.kind == "video" else ()
    return Strip(source, own, tuple(bars), marks, flags, ticks, _film(timed, length_s), lanes_px + 2 * MARGIN_PX)


def _film(timed: list[tuple[Look, float]], length_s: float) -> tuple[Look | None, ...]:
    nearest: list[tuple[float, Look] | None] = [None] * FILM_CELLS
    for look, at in timed:
        if look.close:
            continue
        cell = min(FILM_CELLS - 1, max(0, int(at / length_s * FILM_CELLS)))
        off = abs(at - (cell + 0.5) * length_s / FILM_CELLS)
        known = nearest[cell]
        if known is None or off < known[0]:
            nearest[cell] = (off, look)
    return tuple(found and found[1] for found in nearest)


def _ticks(length_s: float) -> tuple[tuple[float, str], ...]:
    step_s = next((step for step in STEPS_S if length_s / step <= MOST_TICKS), STEPS_S[-1])
    ticks = []
    for number in range(int(length_s / step_s) + 1):
        at_s = number * step_s
        ticks.append((round(at_s / length_s * 100, 3), short_time(at_s)))
    return tuple(ticks)


def short_time(seconds: float) -> str:
    """``1:23`` or ``1:02:03.5``: a moment without zeros that say nothing."""
    text = format_time(seconds).rstrip("0").rstrip(".") if seconds % 1 else format_time(seconds)[:-4]
    return text.removeprefix("0:").removeprefix("0") if text.startswith("0:") else text
