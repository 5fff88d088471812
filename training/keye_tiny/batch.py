"""From worker shards to device tensors: copies from pinned memory, pictures rendered there and cut into patches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.keye_tiny.model import KeyeTiny
from training.keye_tiny.shape import TinyShape
from training.keye_tiny.supply import FRAME, FRAME_TOKENS, Buckets, PictureGroup, Shard
from training.keye_tiny.vision import GridTables, to_patches

Render = Callable[[Any, int, int], Tensor]
"""Pixels [n, height, width, 3] uint8 on the device, from packed pictures and their height and width."""


class Pass(NamedTuple):
    """One run of the vision tower over pictures that share a padded grid."""

    patches: Tensor
    """[n, L, 588] uint8"""
    weights: Tensor
    cos: Tensor
    sin: Tensor
    mask: Tensor | None


@dataclass(frozen=True)
class Micro:
    """A shard on the device, pictures rendered; fields as in :class:`~training.keye_tiny.supply.Shard`."""

    reader: bool
    ids: Tensor
    positions: Tensor
    valid: Tensor
    families: Tensor
    loss_from: Tensor
    loss_to: Tensor
    loss_row: Tensor
    loss_answer: Tensor
    loss_kind: Tensor
    probes: Tensor
    seen_from: Tensor
    seen_to: Tensor
    letter_at: Tensor
    letter: Tensor


@dataclass(frozen=True)
class Step:
    """The micro-batches of one optimiser step; their pictures go through the vision tower together."""

    micros: tuple[Micro, ...]
    passes: tuple[Pass, ...]
    """``seen_from`` of every micro-batch counts in the pool of visual tokens that these make."""


class Loader:
    """Moves shards to one device and cuts their pictures into passes of the vision tower."""

    def __init__(self, shape: TinyShape, buckets: Buckets, device: torch.device, render: Render) -> None:
        self._shape, self._buckets, self._device, self._render = shape, buckets, device, render
        self._grids = GridTables(shape, device)

    def load(self, shards: Sequence[Shard]) -> Step:
        """One step of these shards."""
        return self.load_all([shards])[0]

    def load_all(self, steps: Sequence[Sequence[Shard]]) -> list[Step]:
        """Several steps; all pictures of one size are rendered together."""
        pixels = deque(self._render_all([group for shards in steps for shard in shards for group in _groups(shard)]))
        found: list[Step] = []
        for shards in steps:
            frames: list[Tensor] = []
            mixed: list[Tensor] = []
            before: list[tuple[int, int]] = []
            for shard in shards:
                before.append((sum(map(len, frames)), sum(map(len, mixed))))
                frames += [pixels.popleft()] if shard.frames is not None else []
                mixed += [pixels.popleft() for _ in shard.mixed]
            passes = self.cut(torch.cat(frames) if frames else None, mixed)
            padded = self._padded(sum(map(len, frames)))
            micros = (self._micro(shard, *places, padded) for shard, places in zip(shards, before, strict=True))
            found.append(Step(tuple(micros), passes))
        return found

    def _padded(self, frames: int) -> int:
        """Visual tokens of so many frames in whole passes."""
        chunk = self._buckets.frame_chunk
        return -(-frames // chunk) * chunk * FRAME_TOKENS

    @torch.no_grad()
    def _render_all(self, groups: list[PictureGroup]) -> list[Tensor]:
        by_size: dict[tuple[int, int], list[int]] = {}
        for index, group in enumerate(groups):
            by_size.setdefault((group.height, group.width), []).append(index)
        found: dict[int, Tensor] = {}
        for (height, width), members in by_size.items():
            counts = [groups[index].count for index in members]
            packed = np.concatenate([groups[index].packed for index in members])
            parts = self._render(packed, height, width).split(counts)  # type: ignore[no-untyped-call]
            for index, pixels in zip(members, parts, strict=True):
                group = groups[index]
                if len(group.real_at):
                    places = torch.from_numpy(group.real_at).to(self._device)
                    pixels[places] = torch.from_numpy(group.real).to(self._device)
                found[index] = pixels
        return [found[index] for index in range(len(groups))]

    def _micro(self, shard: Shard, frames_before: int, mixed_before: int, padded: int) -> Micro:
        def move(values: Any) -> Tensor:
            held = values if isinstance(values, Tensor) else torch.from_numpy(values)
            return held.to(self._device, non_blocking=True)

        lengths = move(shard.lengths)
        own = self._padded(shard.frames.count if shard.frames is not None else 0)
        place = move(shard.seen_from)
        frame_shift, mixed_shift = (
            frames_before * FRAME_TOKENS,
            padded - own + mixed_before * self._buckets.mixed_tokens,
        )
        return Micro(
            reader=shard.reader,
            ids=move(shard.ids),
            positions=move(shard.positions),
            valid=torch.arange(shard.length, device=self._device) < lengths[:, None],
            families=move(shard.families),
            loss_from=move(shard.loss_from),
            loss_to=move(shard.loss_to),
            loss_row=move(shard.loss_row),
            loss_answer=move(shard.loss_answer),
            loss_kind=move(shard.loss_kind),
            probes=move(shard.probes),
            seen_from=torch.where(place < own, place + frame_shift, place + mixed_shift),
            seen_to=move(shard.seen_to),
            letter_at=move(shard.letter_at),
            letter=move(shard.letter),
        )

    @torch.no_grad()
    def cut(self, frames: Tensor | None, mixed: Sequence[Tensor]) -> tuple[Pass, ...]:
        """Passes over pixels [n, height, width, 3]: frames in chunks of their own grid, others padded and masked."""
        found: list[Pass] = []
        if frames is not None:
            patches = _pad(to_patches(frames, self._shape), self._buckets.frame_chunk)
            weights, cos, sin = self._grids.of(*FRAME)
            found += [Pass(chunk, weights, cos, sin, None) for chunk in patches.split(self._buckets.frame_chunk)]  # type: ignore[no-untyped-call]
        if mixed:
            found += self._mixed(mixed)
        return tuple(found)

    def _mixed(self, pictures: Sequence[Tensor]) -> list[Pass]:
        count = sum(len(pixels) for pixels in pictures)
        chunk = self._buckets.mixed_chunk
        rows = -(-count // chunk) * chunk
        longest = self._buckets.mixed_tokens * self._shape.merge**2
        half = self._shape.vision_width // self._shape.vision_heads // 2
        patches = torch.zeros(rows, longest, 3 * self._shape.patch**2, dtype=torch.uint8, device=self._device)
        weights = torch.zeros(rows, longest, self._shape.table_side**2, device=self._device)
        cos = torch.ones(rows, 1, longest, half, device=self._device)
        sin = torch.zeros(rows, 1, longest, half, device=self._device)
        mask = torch.zeros(rows, longest, dtype=torch.bool, device=self._device)
        mask[count:, 0] = True
        at = 0
        for pixels in pictures:
            cut = to_patches(pixels, self._shape)
            here, length = slice(at, at + len(pixels)), cut.shape[1]
            grid_weights, grid_cos, grid_sin = self._grids.of(pixels.shape[1], pixels.shape[2])
            patches[here, :length] = cut
            weights[here, :length] = grid_weights
            cos[here, 0, :length] = grid_cos
            sin[here, 0, :length] = grid_sin
            mask[here, :length] = True
            at += len(pixels)
        pieces = zip(*(values.split(chunk) for values in (patches, weights, cos, sin, mask)), strict=True)  # type: ignore[no-untyped-call]
        return [Pass(*piece) for piece in pieces]


def see(model: KeyeTiny, passes: tuple[Pass, ...]) -> Tensor | None:
    """The pool of visual tokens [n, hidden] of all passes, padding included; None without pictures."""
    if not passes:
        return None
    learned = any(weight.requires_grad for weight in model.visual.parameters())
    with torch.set_grad_enabled(learned and torch.is_grad_enabled()):
        return torch.cat(
            [
                model.mlp_AR(model.visual(one.patches.float().div_(127.5).sub_(1.0), *one[1:])).flatten(0, 1)
                for one in passes
            ]
        )


def _pad(patches: Tensor, chunk: int) -> Tensor:
    missing = -len(patches) % chunk
    return torch.cat((patches, patches.new_zeros(missing, *patches.shape[1:]))) if missing else patches


def _groups(shard: Shard) -> list[PictureGroup]:
    return [*([shard.frames] if shard.frames is not None else []), *shard.mixed]


def pinned(shard: Shard) -> Shard:
    """The shard with its plain arrays as pinned tensors, for copies that do not wait."""
    moved: dict[str, Any] = {
        item.name: torch.from_numpy(value).pin_memory()
        for item in fields(shard)
        if isinstance(value := getattr(shard, item.name), np.ndarray)
    }
    return replace(shard, **moved)
