"""Pictures of board videos for the trainer and the evaluation: the batch renderer behind one function."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor

from keyeloop.tools.demo_video.glyphs import GlyphAtlas
from training.keye_tiny.batch import Render
from training.keye_tiny.packing import Packed
from training.keye_tiny.render import BatchRenderer

GPU_CHUNK_PIXELS = 2048 * 252 * 140
"""Pixels that a GPU renders at once: large, since a call costs thousands of launches."""


def bundled_atlas() -> Path:
    """The atlas that ships with the package."""
    return Path(str(files("keyeloop.tools.demo_video") / "fonts.npz"))


def open_render(atlas: Path | None, device: torch.device, seed: int | None = None) -> Render:
    """A function that renders groups of packed pictures, degraded as on their way through codec and media store."""
    generator = None if seed is None else torch.Generator(device).manual_seed(seed)
    extra = {"chunk_pixels": GPU_CHUNK_PIXELS} if device.type == "cuda" else {}
    renderer = BatchRenderer(GlyphAtlas.load(atlas or bundled_atlas()), device, generator=generator, **extra)

    def render(packed: Packed, height: int, width: int) -> Tensor:
        return renderer.render(packed, height, width)

    return render


def blank_render(device: torch.device) -> Render:
    """Grey pictures in the stead of all."""

    def render(packed: Packed, height: int, width: int) -> Tensor:
        return torch.full((len(packed), height, width, 3), 128, dtype=torch.uint8, device=device)

    return render
