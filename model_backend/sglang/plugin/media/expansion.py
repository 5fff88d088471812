"""From a prompt with places for pictures to the prompt that the model reads.

A picture is ``<|vision_start|><|image_pad|><|vision_end|>`` and a clip ``<|vision_start|><|video_pad|><|vision_end|>``,
each with one pad; here the pad becomes as many as the picture costs, and a clip is written out as
``<|frame|>83.0<|video_pad|>...`` for every frame. A prompt that is written out already is taken as it is, if every run
of pads is as long as its picture costs. Equal to :meth:`keyeloop.model_backend.keye.tokenizer.KeyeTokenizer.lay_out`
of :func:`keyeloop.model_backend.keye.template.render`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from keyeloop.model_backend.keye.config import SpecialTokens
from keyeloop.model_backend.keye.positions import Grid
from keyeloop.model_backend.sglang.plugin.media.fitting import Size
from keyeloop.model_backend.sglang.plugin.media.shown import Shown, ShownClip
from keyeloop.runtime.errors import InputError

PATCH = 14


@dataclass(frozen=True)
class Place:
    """Where a picture stands in the written-out prompt: places ``start`` to ``end``, both included."""

    shown: Shown
    kind: Literal["image", "frame"]
    start: int
    end: int

    @property
    def grid(self) -> Grid:
        """(1, rows, columns) in patches of 14 pixels."""
        return 1, self.shown.size.height // PATCH, self.shown.size.width // PATCH


@dataclass(frozen=True)
class Expanded:
    """A prompt as the model reads it, and its pictures in order."""

    ids: list[int]
    places: list[Place]


def expand(
    ids: Sequence[int],
    stills: Sequence[Shown],
    clips: Sequence[ShownClip],
    tokens: SpecialTokens,
    encode_time: Callable[[float], Sequence[int]],
) -> Expanded:
    """Fill the places of ``ids`` with pictures and clips, each kind in its order.

    ``encode_time`` gives the tokens before a frame: ``<|frame|>`` and its time. Raises InputError where places and
    pictures do not match, saying which.
    """
    return _Expansion(stills, clips, tokens, encode_time).run(ids)


class _Expansion:
    def __init__(
        self,
        stills: Sequence[Shown],
        clips: Sequence[ShownClip],
        tokens: SpecialTokens,
        encode_time: Callable[[float], Sequence[int]],
    ) -> None:
        self._stills, self._clips, self._tokens, self._encode_time = stills, clips, tokens, encode_time
        self._still = self._clip = self._frame = 0
        self._made = Expanded([], [])

    def run(self, ids: Sequence[int]) -> Expanded:
        done = 0
        for start, end in _runs(ids, frozenset(self._tokens.pictures)):
            self._made.ids.extend(ids[done:start])
            if ids[start] == self._tokens.image:
                self._put_still(end - start)
            elif not self._frame and end - start == 1 and start and ids[start - 1] == self._tokens.vision_start:
                self._write_clip()
            else:
                self._put_frame(end - start)
            done = end
        self._made.ids.extend(ids[done:])
        if self._still < len(self._stills) or self._clip < len(self._clips) or self._frame:
            raise InputError(f"the prompt has places for {self._still} pictures and {self._clip} whole clips, the "
                             f"request {len(self._stills)} pictures and {len(self._clips)} clips")  # fmt: skip
        return self._made

    def _put_still(self, places: int) -> None:
        if self._still == len(self._stills):
            raise InputError(f"the prompt has a place for picture {self._still + 1}, the request {self._still}")
        shown = self._stills[self._still]
        self._still += 1
        if places not in (1, shown.size.tokens):
            raise _length(f"picture {self._still}", shown.size, places)
        self._put(shown, "image")

    def _write_clip(self) -> None:
        clip = self._next_clip()
        for shown, time_s in zip(clip.frames, clip.times_s, strict=True):
            self._made.ids.extend(self._encode_time(time_s))
            self._put(shown, "frame")
        self._clip += 1

    def _put_frame(self, places: int) -> None:
        clip = self._next_clip()
        shown = clip.frames[self._frame]
        self._frame += 1
        if places != shown.size.tokens:
            raise _length(f"frame {self._frame} of clip {self._clip + 1}", shown.size, places)
        self._put(shown, "frame")
        if self._frame == len(clip.frames):
            self._clip, self._frame = self._clip + 1, 0

    def _next_clip(self) -> ShownClip:
        if self._clip == len(self._clips):
            raise InputError(f"the prompt has a place for clip {self._clip + 1}, the request {self._clip} clips")
        return self._clips[self._clip]

    def _put(self, shown: Shown, kind: Literal["image", "frame"]) -> None:
        start, cost = len(self._made.ids), shown.size.tokens
        self._made.ids.extend([self._tokens.image if kind == "image" else self._tokens.video] * cost)
        self._made.places.append(Place(shown, kind, start, start + cost - 1))


def _length(name: str, size: Size, places: int) -> InputError:
    return InputError(f"{name} of {size.width}x{size.height} pixels takes {size.tokens} tokens, the prompt has "
                      f"{places} places for it: write 1, or as many as it takes")  # fmt: skip


def _runs(ids: Sequence[int], pads: frozenset[int]) -> list[tuple[int, int]]:
    """First and one past the last place of every run of one and the same pad."""
    runs: list[tuple[int, int]] = []
    held: int | None = None
    for place, token in enumerate(ids):
        if token not in pads:
            held = None
        elif token == held:
            runs[-1] = (runs[-1][0], place + 1)
        else:
            runs.append((place, place + 1))
            held = token
    return runs
