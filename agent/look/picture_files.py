"""Pictures for people as PNG files: pixel for pixel, and no file is ever replaced."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import cv2
import numpy as np

from keyeloop.runtime.errors import InputError
from keyeloop.runtime.picture import Pixels

STEM_CHARS = 50
"""How much of a source file's name goes into the names of its pictures: file names have a limit."""


def picture_name(source: Path, *marks: str) -> str:
    """``board-0h01m23.500s`` or ``board-0h01m23.500s-box-310-200-640-460``: a file name without its ending."""
    return "-".join((source.stem[:STEM_CHARS], *marks))


def time_mark(time_s: float) -> str:
    """``0h01m23.500s``: sorts as the moments do, and holds nothing that a file system minds."""
    minutes, milliseconds = divmod(round(time_s * 1000), 60_000)
    return f"{minutes // 60}h{minutes % 60:02d}m{milliseconds // 1000:02d}.{milliseconds % 1000:03d}s"


def require_folder(folder: Path) -> None:
    """Raises InputError when ``folder`` cannot be one."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder} is a file: name a folder for the pictures")


def encode_png(pixels: Pixels) -> bytes:
    """Height x width x 3 uint8 RGB pixels as PNG, without loss."""
    done, data = cv2.imencode(".png", np.ascontiguousarray(pixels[:, :, ::-1]))
    if not done:
        raise InputError(f"a picture of {pixels.shape[1]}x{pixels.shape[0]} pixels could not be encoded as PNG")
    return data.tobytes()


def save_picture(folder: Path, name: str, pixels: Pixels) -> Path:
    """Write ``name.png`` below ``folder`` and return its path; the same picture that is there already is left alone.

    Another file of that name stays as it is, and this one becomes ``name-2.png``. Raises InputError when the folder
    cannot be made or written.
    """
    data = encode_png(pixels)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            path = folder / (f"{name}.png" if number == 1 else f"{name}-{number}.png")
            if _write_new(path, data) or _holds(path, data):
                break
    except OSError as error:
        raise InputError(f"no picture can be written in {folder}: {error.strerror}; name another --out") from None
    return path


def _write_new(path: Path, data: bytes) -> bool:
    """Whether ``path`` was free and now holds ``data``."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return False
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return True


def _holds(path: Path, data: bytes) -> bool:
    return path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data
