"""A sheet of pictures as the network sees them, and beside it what each is trained to say."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from training.keye_tiny.batch import Micro, Pass
from training.keye_tiny.supply import FRAME, FRAME_TOKENS

COLUMNS = 6
MOST = 48


def save_sheet(micro: Micro, passes: tuple[Pass, ...], out: Path) -> None:
    """Write ``pictures.png`` and ``pictures.txt``: the frames of some rows, undone from the patches in the pool."""
    from training.keye_tiny.sample import tokenizer

    high, wide = FRAME[0] // 28, FRAME[1] // 28
    tiles = torch.cat([one.patches.view(-1, 2, 2, 3, 14, 14) for one in passes])
    length = micro.ids.shape[1]
    rows = torch.div(micro.seen_to, length, rounding_mode="floor")
    pictures: list[npt.NDArray[np.uint8]] = []
    lines: list[str] = []
    for row in range(len(micro.ids)):
        mine = micro.seen_from[rows == row]
        if len(mine) != FRAME_TOKENS or len(pictures) == MOST:
            continue
        picture = tiles[mine].view(high, wide, 2, 2, 3, 14, 14).permute(0, 2, 5, 1, 3, 6, 4).reshape(*FRAME, 3)
        pictures.append(picture.cpu().numpy())
        said = tokenizer().decode(micro.loss_to[micro.loss_row == row].tolist())
        lines.append(f"row {len(lines) // COLUMNS + 1} column {len(lines) % COLUMNS + 1}: {said!r}")
    pictures += [np.zeros((*FRAME, 3), np.uint8)] * (-len(pictures) % COLUMNS)
    grid = np.stack(pictures).reshape(-1, COLUMNS, *FRAME, 3).transpose(0, 2, 1, 3, 4)
    out.mkdir(parents=True, exist_ok=True)
    (out / "pictures.png").write_bytes(png(grid.reshape(-1, COLUMNS * FRAME[1], 3)))
    (out / "pictures.txt").write_text("\n".join(lines) + "\n")


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A PNG file of pixels [height, width, 3] RGB."""
    height, width, _ = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body
