"""Rope positions of a prompt: text counts on, a picture spreads over rows and columns and takes up its longer side.

No axis carries absolute time: a clip is one block a frame, and the frame's time stands before it as text. Source:
``get_rope_index_keye`` of Kwai-Keye/sglang (blocks in order of occurrence, one grid row a frame).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from keyeloop.runtime.errors import InputError

Grid = tuple[int, int, int]
"""(frames, rows, columns) in patches; rows and columns are even. A frame of a clip has its own grid with frames = 1."""


def rope_positions(
    ids: Sequence[int], grids: Sequence[Grid], picture_tokens: Collection[int], *, merge: int = 2, start: int = 0
) -> tuple[Tensor, int]:
    """Positions [3, T] (time, height, width; int64) of ``ids``, and the delta of decoding.

    ``grids`` are those of all pictures, stills and frames, in prompt order; ``picture_tokens`` are the ids that stand
    for them. ``start`` is the position of the first token. A token decoded after ``n`` tokens has position
    ``n + delta`` on all axes (``start`` included). Raises InputError where picture tokens and grids disagree.
    """
    pads = frozenset(picture_tokens)
    pieces: list[Tensor] = []
    done, position = 0, start
    for number, (frames, rows, columns) in enumerate(grids):
        height, width = rows // merge, columns // merge
        size = frames * height * width
        first = next((place for place in range(done, len(ids)) if ids[place] in pads), len(ids))
        run = ids[first : first + size]
        if not size or len(run) < size or run.count(run[0]) != size:
            raise InputError(f"picture {number + 1} of {len(grids)} needs {size} picture tokens in a row "
                             f"at place {first} of the prompt; lay it out as width * height / 784")  # fmt: skip
        pieces.append(_text(first - done, position))
        position += first - done
        pieces.append(_block(frames, height, width) + position)
        position += max(frames, height, width)
        done = first + size
    if any(token in pads for token in ids[done:]):
        raise InputError(f"the prompt has picture tokens after the last of {len(grids)} pictures")
    pieces.append(_text(len(ids) - done, position))
    return torch.cat(pieces, 1), position + len(ids) - done - len(ids)


@lru_cache(maxsize=64)
def _block(frames: int, height: int, width: int) -> Tensor:
    """Offsets [3, places] inside one picture; the frames of a clip share them."""
    block = torch.cartesian_prod(torch.arange(frames), torch.arange(height), torch.arange(width))
    return block.view(frames * height * width, 3).t()


def _text(length: int, position: int) -> Tensor:
    return torch.arange(position, position + length).expand(3, -1)
