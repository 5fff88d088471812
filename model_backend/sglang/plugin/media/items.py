"""A picture as the item in which SGLang carries it, and back.

The feature of an item is the picture's file. Plain bytes pass between SGLang's processes as they are, whatever release
moves them: tensors go through a shared memory each, and other types are not known there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from sglang.srt.managers.schedule_batch import MM_PAD_SHIFT_VALUE, Modality, MultimodalDataItem

from keyeloop.model_backend.keye.positions import Grid
from keyeloop.model_backend.sglang.plugin.media.expansion import PATCH, Place
from keyeloop.model_backend.sglang.plugin.media.fitting import Size
from keyeloop.model_backend.sglang.plugin.media.shown import Shown

_WIDE = (1 << 61) - 1
_GRIDS: Mapping[Any, str] = {Modality.IMAGE: "image_grid_thw", Modality.VIDEO: "video_grid_thw"}


def item_of(place: Place) -> MultimodalDataItem:
    """The item of a picture in its place; its hash and its value in the radix key are made of the identity."""
    modality = Modality.IMAGE if place.kind == "image" else Modality.VIDEO
    item = MultimodalDataItem(
        modality=modality,
        offsets=[(place.start, place.end)],
        feature=place.shown.data,
        model_specific_data={_GRIDS[modality]: torch.tensor([place.grid])},
    )
    if hasattr(item, "set_identity"):
        item.set_identity(place.shown.identity)
    else:  # 0.5.17 keeps 30 bits of a hash in the radix key, too few to tell many pictures apart
        number = int.from_bytes(place.shown.identity[:8], "big")
        item.set_hash(number)
        item.pad_value = MM_PAD_SHIFT_VALUE + (number & _WIDE)
    return item


def grid_of(item: Any) -> Grid:
    """(1, rows, columns) in patches of an item of :func:`item_of`."""
    frames, rows, columns = getattr(item, _GRIDS[item.modality]).flatten().tolist()
    return int(frames), int(rows), int(columns)


def picture_of(item: Any) -> Shown:
    """The picture of an item of :func:`item_of`, without its identity, which the item's hash has taken over."""
    _, rows, columns = grid_of(item)
    kind = "image" if item.modality == Modality.IMAGE else "frame"
    return Shown(item.feature, Size(columns * PATCH, rows * PATCH), kind, b"")  # type: ignore[arg-type]
