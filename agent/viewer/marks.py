"""A look on the strip as markup: written here and not in a template, since an hour can have thousands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from markupsafe import Markup

from keyeloop.agent.viewer.looks import Look, Mark, short_time


def address(look: Look) -> Markup:
    """Attributes that say where a look points; the script reads them."""
    return Markup(_address(look))


def words(look: Look, times: str) -> str:
    """What a look is, for those who hear the page."""
    what = f"crop, {times} closer" if look.close else "whole frame"
    when = "" if look.view.time_s is None else f", at {short_time(look.view.time_s)}"
    return f"{look.view.handle}, {what}{when}" + (f", step {look.turn}" if look.turn else "")


def circles(marks: Sequence[Mark], times: Callable[[float], str]) -> Markup:
    """The marks of a strip, which can be chosen; the first is the one that Tab comes to."""
    made = (
        f'<circle class="mark {"crop" if mark.look.close else "look"}" role="button" tabindex="{-1 if place else 0}" '
        f'cx="{mark.x_percent}%" cy="{mark.y_px}" r="{mark.radius_px}" {_address(mark.look)} '
        f'aria-label="{escape(words(mark.look, times(mark.look.closeness)))}"/>'
        for place, mark in enumerate(marks)
    )
    return Markup("".join(made))


def _address(look: Look) -> str:
    view = look.view
    box = view.region
    time = "" if view.time_s is None else f' data-time="{view.time_s}"'
    return (
        f'data-kind="{"crop" if look.close else "look"}" data-source="{escape(view.source)}"{time} '
        f'data-box="{box.x0},{box.y0},{box.x1},{box.y1}" data-handle="{escape(view.handle)}" '
        f'data-turn="{look.turn}" data-sha="{escape(look.media.sha256)}"'
    )
