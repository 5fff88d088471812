"""The templates' environment: every value escaped, a missing one an error, and the words for numbers and times."""

from __future__ import annotations

import time
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from keyeloop.agent.viewer.looks import short_time
from keyeloop.agent.viewer.marks import address, circles, words
from keyeloop.agent.viewer.timeline import answer_pieces
from keyeloop.agent.wording import clean

KEYS = (
    (("/",), "search"),
    (("j", "k"), "next step, the one before"),
    (("]", "["), "next look, the one before"),
    (("Enter",), "play from the look that has the focus"),
    (("space",), "play, pause"),
    (("g", "G"), "first step, last step"),
    (("t",), "light or dark"),
    (("Esc",), "close the search"),
)
EYE = Markup(
    '<svg class="eye" viewBox="0 0 32 20" width="26" height="16" aria-hidden="true">'
    '<path d="M1 10C6 2.5 11 1 16 1s10 1.5 15 9c-5 7.5-10 9-15 9S6 17.5 1 10Z"/><circle cx="16" cy="10" r="5"/></svg>'
)


def build_environment() -> Environment:
    """The environment of every page."""
    made = Environment(
        loader=PackageLoader("keyeloop.agent.viewer"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "clean": clean,
        "count": count_words,
        "date": date_words,
        "duration": duration_words,
        "filename": lambda path: Path(path).name,
        "moment": short_time,
        "times": times_words,
    }
    made.globals |= {
        "answer_pieces": answer_pieces,
        "circles": lambda marks: circles(marks, times_words),
        "eye": lambda: EYE,
        "keys": KEYS,
        "look_address": address,
        "look_words": lambda look: words(look, times_words(look.closeness)),
    }
    return made


def count_words(number: int) -> str:
    """``12,345``."""
    return f"{number:,}"


def duration_words(seconds: float) -> str:
    """``40 ms``, ``1.3 s``, ``4:05 min`` or ``1:02:03 h``."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 0.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d} h"


def times_words(factor: float) -> str:
    """``×3.2``, ``×12``."""
    return f"×{factor:.0f}" if factor >= 9.95 else f"×{factor:.1f}"


def date_words(time_s: float) -> str:
    """Local date and time of seconds since the epoch, to the minute."""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(time_s))
    except (OverflowError, ValueError, OSError):
        return "?"
