"""Background patterns as formulas on any array library: how much of the second colour lies at a point.

Edges are ramps as wide as the footprint of a pixel, which stands in for averaging over it. ``xp`` is ``numpy`` or
``torch``; coordinates and parameters are arrays that broadcast to ``[..., height, width]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keyeloop.tools.demo_video.scene import Style

TURN = 6.283185307179586
WAVES = ((1.0, 0.0, 0.0), (-0.4, 0.75, 0.31), (0.3, 1.3, 0.77))
"""Direction along and across, and phase, of the three waves that make clouds."""


@dataclass(frozen=True)
class Points:
    """Where to evaluate: pixel centres in source pixels, and the frame's and the footprint's size in the same."""

    x: Any
    y: Any
    footprint: Any
    width: float
    height: float


def mix(xp: Any, style: Style, at: Points, angle: Any, period: Any, phase: Any, share: Any) -> Any:
    """The share of the second colour at every point, 0 to 1."""
    cos, sin = xp.cos(angle), xp.sin(angle)
    middle_x, middle_y = at.x - at.width / 2, at.y - at.height / 2
    if style is Style.FLAT:
        return middle_x * 0 + middle_y * 0
    if style is Style.ROOM:
        floor = at.height * (0.55 + 0.3 * phase)
        return _step(xp, at.y - floor, at.footprint) * 0.85 + 0.15 * (at.y / at.height) + middle_x * 0
    if style in (Style.RADIAL, Style.RINGS):
        radius = xp.sqrt(middle_x**2 + middle_y**2)
        if style is Style.RADIAL:
            return _unit(xp, radius / period)
        return _bars(xp, radius, period, phase, share, at.footprint)
    along = middle_x * cos + middle_y * sin
    if style is Style.LINEAR:
        return _unit(xp, along / period + 0.5)
    if style is Style.SPLIT:
        return _step(xp, along - (phase - 0.5) * 400, at.footprint)
    if style is Style.STRIPES:
        return _bars(xp, along, period, phase, share, at.footprint)
    across = middle_y * cos - middle_x * sin
    if style is Style.WAVES:
        bent = along + 0.25 * period * xp.sin(across * (TURN / 2 / period))
        return _bars(xp, bent, period, phase, share, at.footprint)
    if style is Style.CLOUDS:
        total = 0.0
        for one, two, shift in WAVES:
            total = total + xp.cos(TURN * ((one * along + two * across) / period + phase + shift))
        return _unit(xp, 0.5 + total / 6)
    if style is Style.CHECKER:
        one = _bars(xp, along, 2 * period, phase, 0.5, at.footprint)
        two = _bars(xp, across, 2 * period, phase, 0.5, at.footprint)
        return one + two - 2 * one * two
    if style is Style.GRID:
        one = _bars(xp, along, period, phase, 0.12, at.footprint)
        two = _bars(xp, across, period, phase, 0.12, at.footprint)
        return one + two - one * two
    if style is Style.DOTS:
        radius = xp.sqrt(_wrapped(xp, along, period, phase) ** 2 + _wrapped(xp, across, period, phase) ** 2)
        return 1 - _step(xp, radius - share * period * 0.5, at.footprint)
    row = xp.floor(middle_y / (period * 0.5) + phase)
    mortar = _bars(xp, middle_y, period * 0.5, phase, 0.12, at.footprint)
    joints = _bars(xp, middle_x + row * period * 0.5, period, phase, 0.06, at.footprint)
    return mortar + joints - mortar * joints


def _unit(xp: Any, value: Any) -> Any:
    return xp.clip(value, 0, 1)


def _step(xp: Any, distance: Any, footprint: Any) -> Any:
    """0 before an edge and 1 behind it."""
    return xp.clip(distance / footprint + 0.5, 0, 1)


def _wrapped(xp: Any, value: Any, period: Any, phase: Any) -> Any:
    """Distance to the nearest whole period, signed."""
    turns = value / period + phase
    return (turns - xp.floor(turns + 0.5)) * period


def _bars(xp: Any, value: Any, period: Any, phase: Any, share: Any, footprint: Any) -> Any:
    """Average over the footprint of bars that fill ``share`` of every period, centred on whole periods."""
    half = share * period / 2
    distance = xp.abs(_wrapped(xp, value, period, phase))
    covered = xp.minimum(distance + footprint / 2, half) - xp.maximum(distance - footprint / 2, -half)
    return xp.clip(covered / footprint, 0, 1)
