"""A look on the strip as markup: written here and not in a template, since an hour can have thousands."""

from __future__ import annotations

from markupsafe import Markup, escape

from keyeloop.agent.viewer.looks import Look, Mark, short_time


def address(look: Look) -> Markup:
    """Attributes that say where a look points; the script reads them."""
    box = look.view.region
    time = "" if look.view.time_s is None else f' data-time="{look.view.time_s}"'
    return Markup(
        f'data-kind="{"crop" if look.close else "look"}" data-source="{escape(look.view.source)}"{time} '
        f'data-box="{box.x0},{box.y0},{box.x1},{box.y1}" data-handle="{escape(look.view.handle)}" '
        f'data-turn="{look.turn}" data-sha="{escape(look.media.sha256)}"'
    )


def words(look: Look, times: str) -> str:
    """What a look is, for those who hear the page."""
    what = f"crop, {times} closer" if look.close else "whole frame"
    when = "" if look.view.time_s is None else f", at {short_time(look.view.time_s)}"
    return f"{look.view.handle}, {what}{when}" + (f", step {look.turn}" if look.turn else "")


def circle(mark: Mark, first: bool, times: str) -> Markup:
    """A mark that can be chosen; the first of a strip is the one that Tab comes to."""
    return Markup(
        f'<circle class="mark {"crop" if mark.look.close else "look"}" role="button" tabindex="{0 if first else -1}" '
        f'cx="{mark.x_percent}%" cy="{mark.y_px}" r="{mark.radius_px}" {address(mark.look)} '
        f'aria-label="{escape(words(mark.look, times))}"/>'
    )
