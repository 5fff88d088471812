"""Given choices of places for a whole prompt, of which adjacent queries have a wanted part in common."""

from __future__ import annotations

import torch
from torch import Tensor

ALIKE = 16
"""Adjacent queries that share; chunks begin at multiples of this."""


def choices(start: int, queries: int, topk: int, shared: float, device: torch.device) -> Tensor:
    """[queries, topk] int32 places, ascending and distinct, of the tokens from ``start`` on; -1 for none.

    A token that sees at most ``topk`` places takes them all. Each other takes one at random of each of ``topk`` equal
    stretches of what is seen; of every 16 adjacent tokens the part ``shared`` of stretches gives the same place. Where
    stretches are short neighbours have more in common by chance. ``topk``, ``start`` and ``queries`` are multiples of
    16.
    """
    positions = torch.arange(start, start + queries, dtype=torch.int32, device=device).unsqueeze(1)
    seen = positions // ALIKE * ALIKE + 1
    edges = (seen.long() * torch.arange(topk + 1, device=device) // topk).to(torch.int32)
    low, width = edges[:, :-1], edges.diff(dim=1)
    blocks = queries // ALIKE
    common = torch.rand(blocks, 1, topk, device=device) < shared
    base, own = (torch.rand(blocks, some, topk, device=device) for some in (1, ALIKE))
    where = torch.where(common, base, own).view(queries, topk)
    place = low + torch.minimum((where * width).to(torch.int32), width - 1)
    everything = torch.arange(topk, dtype=torch.int32, device=device).expand(queries, -1)
    everything = everything.masked_fill(everything > positions, -1)
    return torch.where(positions < topk, everything, place).contiguous()
