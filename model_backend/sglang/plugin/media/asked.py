"""What a request asks to be shown: names of pictures and clips, each with its own budget.

A budget is the ``preprocess_kwargs`` of Keye's official server: ``min_pixels``, ``max_pixels`` and ``factor`` for a
picture; for a clip also ``video_total_pixels``, ``fps``, ``min_frames``, ``max_frames`` and ``nframes``. It counts for
its own part only, inside ``image_url`` / ``video_url`` or beside it, as the model's README writes it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from keyeloop.model_backend.keye.sizing import FACTOR
from keyeloop.model_backend.sglang.wire import MAX_FRAMES
from keyeloop.runtime.errors import InputError

OPTIONS = "preprocess_kwargs"
MOST_PIXELS = 20_480 * FACTOR * FACTOR
"""No budget makes a picture larger than the largest that the model was made for."""
_PICTURE = ("factor", "min_pixels", "max_pixels")
_CLIP = (*_PICTURE, "video_total_pixels", "fps", "min_frames", "max_frames", "nframes")


@dataclass(frozen=True)
class Budget:
    """Limits of one picture or clip; what is None is the model's own."""

    min_pixels: int | None = None
    max_pixels: int | None = None
    total_pixels: int | None = None
    fps: float | None = None
    min_frames: int | None = None
    max_frames: int | None = None


NO_BUDGET = Budget()


@dataclass(frozen=True)
class Asked:
    """A picture or a clip as a request names it. ``videos`` clips stand in the same message and share its budget."""

    url: str = field(repr=False)  # a picture by value would fill the server's log
    budget: Budget = NO_BUDGET
    videos: int = 1


def asked_of(entries: object, *, clip: bool) -> tuple[Asked, ...]:
    """The media of a request in order: names, mappings or objects with ``url`` and ``preprocess_kwargs``.

    Raises InputError for anything else, such as features that were computed elsewhere.
    """
    if entries is None:
        return ()
    rows = list(_flat(entries if isinstance(entries, list | tuple) else [entries]))
    return tuple(_one(row, clip) for row in rows if row is not None)


def budget_of(options: Mapping[str, Any] | None, *, clip: bool) -> Budget:
    """Read ``preprocess_kwargs``. InputError for a key that is not known, or a number that cannot be."""
    known = _CLIP if clip else _PICTURE
    given = {name: value for name, value in (options or {}).items() if value is not None}
    for name, value in given.items():
        if name not in known:
            raise InputError(f"{OPTIONS} has {name!r}: a {'clip' if clip else 'picture'} takes {', '.join(known)}")
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value <= 0:
            raise InputError(f"{OPTIONS} {name} is {value!r}: give a number above 0")
    if given.get("factor", FACTOR) != FACTOR:
        raise InputError(f"{OPTIONS} factor is {given['factor']}: this model's is {FACTOR}")
    exactly = given.get("nframes")
    budget = Budget(
        min_pixels=_whole(given.get("min_pixels"), MOST_PIXELS),
        max_pixels=_whole(given.get("max_pixels"), MOST_PIXELS),
        total_pixels=_whole(given.get("video_total_pixels")),
        fps=given.get("fps"),
        min_frames=_whole(given.get("min_frames", exactly), MAX_FRAMES),
        max_frames=_whole(given.get("max_frames", exactly), MAX_FRAMES),
    )
    for low, high in (("min_pixels", "max_pixels"), ("min_frames", "max_frames")):
        least, most = getattr(budget, low), getattr(budget, high)
        if least is not None and most is not None and least > most:
            raise InputError(f"{OPTIONS} {low} {least} is above {high} {most}")
    return budget


def _flat(entries: Sequence[Any]) -> list[Any]:
    return [one for entry in entries for one in (_flat(entry) if isinstance(entry, list | tuple) else [entry])]


def _one(entry: Any, clip: bool) -> Asked:
    if isinstance(entry, Asked):
        return entry
    if isinstance(entry, str):
        return Asked(entry)
    url = entry.get("url") if isinstance(entry, Mapping) else getattr(entry, "url", None)
    options = entry.get(OPTIONS) if isinstance(entry, Mapping) else getattr(entry, OPTIONS, None)
    if not isinstance(url, str) or not (options is None or isinstance(options, Mapping)):
        raise InputError("a picture or clip is given by its name: a data URI, a media reference or a clip of them")
    return Asked(url, budget_of(options, clip=clip))


def _whole(value: float | None, most: int | None = None) -> int | None:
    if value is None:
        return None
    return int(value) if most is None else min(int(value), most)
