"""Pixels to patches: rescale to -1..1 and cut 14 x 14 squares in raster order; and resizing as the processor does."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from keyeloop.model_backend.keye.config import VisionConfig
from keyeloop.runtime.errors import InputError


def patch_grid(picture: np.ndarray, config: VisionConfig) -> tuple[int, int]:
    """(rows, columns) of patches of a HxWx3 uint8 picture. Raises InputError unless both sides are multiples of 28."""
    side = config.patch_size * config.spatial_merge_size
    if picture.ndim != 3 or picture.shape[2] != config.num_channels or picture.dtype != np.uint8:
        raise InputError(f"a picture must be height x width x {config.num_channels} uint8 RGB, "
                         f"is {'x'.join(map(str, picture.shape))} {picture.dtype}")  # fmt: skip
    height, width = picture.shape[:2]
    if height % side or width % side or not height or not width:
        raise InputError(f"a picture of {width}x{height} pixels does not fit the model: sides must be "
                         f"multiples of {side}; resize it to VisualCost.image or VisualCost.frame first")  # fmt: skip
    return height // config.patch_size, width // config.patch_size


def patches_of(pixels: Tensor, config: VisionConfig, dtype: torch.dtype) -> Tensor:
    """[B, H, W, 3] uint8 to [B, N, 3 x 14 x 14]: rows of patches from top left, channels first inside a patch.

    Values are ``(x / 255 - 0.5) / 0.5``, computed in float32.
    """
    batch, height, width, channels = pixels.shape
    side = config.patch_size
    values = ((pixels.float() / 255.0 - 0.5) / 0.5).to(dtype)
    blocks = values.view(batch, height // side, side, width // side, side, channels)
    return blocks.permute(0, 1, 3, 5, 2, 4).reshape(batch, (height // side) * (width // side), -1)


def resize(picture: np.ndarray, width: int, height: int, kind: Literal["image", "frame"]) -> np.ndarray:
    """Resample a HxWx3 uint8 picture with antialiasing: bicubic for stills, bilinear for frames, as Keye's processors.

    A picture that already has the size is returned as it is.
    """
    if picture.shape[:2] == (height, width):
        return picture
    pixels = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1).unsqueeze(0)
    mode = "bicubic" if kind == "image" else "bilinear"
    resized = F.interpolate(pixels, size=(height, width), mode=mode, antialias=True, align_corners=False)
    return resized.squeeze(0).permute(1, 2, 0).contiguous().numpy()
