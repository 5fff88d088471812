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
    rows, keys = scores.shape
    common = int(lengths.min())
    outside = torch.arange(common, keys, device=scores.device) >= lengths.unsqueeze(1)
    scores[:, common:].masked_fill_(outside, -torch.inf)
    boundary = _boundary(scores, k) if keys > k else scores.new_full((rows, 1), -torch.inf)
    chosen = scores >= boundary
    chosen[:, common:].masked_fill_(outside, False)
    row, column = chosen.nonzero(as_tuple=True)
    counts = torch.bincount(row, minlength=rows)
    tied = (counts > k).nonzero().squeeze(1)
    if tied.numel():
        chosen[tied] = _lowest_of_ties(scores[tied], boundary[tied], chosen[tied], k)
        row, column = chosen.nonzero(as_tuple=True)
        counts = torch.bincount(row, minlength=rows)
    place = torch.arange(row.shape[0], device=row.device) - (counts.cumsum(0) - counts)[row]
    indices = torch.full((rows, k), -1, dtype=torch.int64, device=scores.device)
    indices[row, place] = column
    return indices


def select_one(scores: Tensor, k: int) -> Tensor:
    """The same for a single row [1, S] with S > k, all of it valid: [k] ascending. The fast path of decoding."""
    chosen = (scores >= _boundary(scores, k)).nonzero()[:, 1]
    if chosen.shape[0] == k:
        return chosen
    return select(scores, k, torch.full((1,), scores.shape[1], device=scores.device))[0]


def _boundary(scores: Tensor, k: int) -> Tensor:
    """The ``k``-th best score of each row, [R, 1]."""
    return scores.topk(k, -1, sorted=False).values.amin(-1, keepdim=True)


def _lowest_of_ties(scores: Tensor, boundary: Tensor, chosen: Tensor, k: int) -> Tensor:
    above = chosen & (scores > boundary)
    tied = chosen & ~above
    room = k - above.sum(-1, keepdim=True)
    return above | (tied & (tied.cumsum(-1) <= room))
