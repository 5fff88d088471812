"""Tensors in safetensors files of bounded size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

PIECE_BYTES = 16_500_000


def save_pieces(
    tensors: Mapping[str, Tensor], folder: Path, stem: str = "weights", limit: int = PIECE_BYTES
) -> list[str]:
    """Write ``stem-00001-of-0000N.safetensors`` files of at most ``limit`` bytes of data each; returns their names."""
    pieces: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        size = value.numel() * value.element_size()
        if pieces[-1] and filled + size > limit:
            pieces.append({})
            filled = 0
        pieces[-1][name] = value
        filled += size
    names = [f"{stem}-{index + 1:05}-of-{len(pieces):05}.safetensors" for index in range(len(pieces))]
    for name, piece in zip(names, pieces, strict=True):
        save_file(piece, folder / f"{name}.new")
    for name in names:
        (folder / f"{name}.new").replace(folder / name)
    return names


def load_pieces(folder: Path, stem: str = "weights") -> dict[str, Tensor]:
    """All tensors of the pieces in a folder. Raises FileNotFoundError when there are none."""
    paths = sorted(folder.glob(f"{stem}-*.safetensors"))
    if not paths:
        raise FileNotFoundError(f"{folder}: no {stem}-*.safetensors")
    found: dict[str, Tensor] = {}
    for path in paths:
        with safe_open(path, "pt") as opened:
            found.update({name: opened.get_tensor(name) for name in opened.keys()})  # noqa: SIM118
    return found
