"""Exact, deterministic top-k: which keys a query attends to.

Ties go to the lowest index and indices come out ascending, so the same scores give the same set on every device.
"""

from __future__ import annotations

import torch
from torch import Tensor


def select(scores: Tensor, k: int, lengths: Tensor) -> Tensor:
    """Indices of the ``k`` best of each row's first ``lengths`` scores: [R, k] int64, ascending, padded with -1.

    ``scores`` [R, S] is overwritten beyond ``lengths`` [R]. A row with fewer than ``k`` scores yields them all; a row
    whose scores are NaN yields an unusable set of its own and leaves other rows alone.
    """
    keys = scores.shape[1]
    places = torch.arange(keys, device=scores.device)
    valid = places < lengths.unsqueeze(1)
    scores.masked_fill_(~valid, -torch.inf)
    if keys <= k:
        chosen = valid
    else:
        boundary = scores.topk(k, -1, sorted=False).values.amin(-1, keepdim=True)
        chosen = (scores >= boundary) & valid
        if int(chosen.sum(-1).max()) > k:
            chosen = _lowest_of_ties(scores, boundary, chosen, k)
    return _compact(chosen, k)


def select_one(scores: Tensor, k: int) -> Tensor:
    """The same for a single row [1, S] with S > k, all of it valid: [k] ascending. The fast path of decoding."""
    boundary = scores.topk(k, -1, sorted=False).values.amin(-1, keepdim=True)
    chosen = (scores >= boundary).nonzero()[:, 1]
    if chosen.shape[0] == k:
        return chosen
    return select(scores, k, torch.full((1,), scores.shape[1], device=scores.device))[0]


def _lowest_of_ties(scores: Tensor, boundary: Tensor, chosen: Tensor, k: int) -> Tensor:
    above = chosen & (scores > boundary)
    tied = chosen & ~above
    room = k - above.sum(-1, keepdim=True)
    return above | (tied & (tied.cumsum(-1) <= room))


def _compact(chosen: Tensor, k: int) -> Tensor:
    """Boolean rows to ascending indices padded with -1."""
    row, column = chosen.nonzero(as_tuple=True)
    place = chosen.cumsum(-1)[row, column] - 1
    indices = torch.full((chosen.shape[0], k), -1, dtype=torch.int64, device=chosen.device)
    indices[row, place] = column
    return indices
