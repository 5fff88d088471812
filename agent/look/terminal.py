"""Pictures inside a terminal: kitty's and iTerm2's protocols where the environment tells of them, half blocks else."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Literal

import cv2
import numpy as np

from keyeloop.agent.look.picture_files import encode_png
from keyeloop.runtime.picture import Pixels, encode_picture

Protocol = Literal["kitty", "iterm2", "blocks"]
SENT_SIDE_PX = 1024
"""Longest side of a picture that is sent to a terminal: more is not seen there, and iTerm2 takes 1 MiB at most."""
_CHUNK_CHARS = 4096
_ITERM2 = ("iTerm.app", "WezTerm")


def protocol_of(environment: Mapping[str, str]) -> Protocol | None:
    """The picture protocol that the environment variables of a terminal promise; None within tmux and screen.

    Sources: https://sw.kovidgoyal.net/kitty/graphics-protocol, https://iterm2.com/documentation-images.html.
    """
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if "TMUX" in environment or term.startswith(("screen", "tmux", "dumb")):
        return None
    if program in _ITERM2 or environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm2"
    if "KITTY_WINDOW_ID" in environment or term in ("xterm-kitty", "xterm-ghostty") or program == "ghostty":
        return "kitty"
    return None


def drawn(pixels: Pixels, protocol: Protocol, columns: int, lines: int) -> str:
    """Text that draws a picture no wider than ``columns`` and no higher than ``lines`` cells, and ends its line."""
    wide, high = cells(pixels, columns, lines)
    if protocol == "blocks":
        return _half_blocks(_resized(pixels, wide, 2 * high))
    scale = min(1.0, SENT_SIDE_PX / max(pixels.shape[:2]))
    small = _resized(pixels, max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    return _iterm2(encode_picture(small), wide) if protocol == "iterm2" else _kitty(encode_png(small), wide)


def cells(pixels: Pixels, columns: int, lines: int) -> tuple[int, int]:
    """Columns and lines of a picture that fills a terminal without being stretched; a cell is twice as high as wide."""
    height, width = pixels.shape[:2]
    wide = max(1, min(columns, 2 * lines * width // height))
    return wide, max(1, min(lines, round(wide * height / width / 2)))


def _resized(pixels: Pixels, width: int, height: int) -> Pixels:
    shrinks = width <= pixels.shape[1] and height <= pixels.shape[0]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=method), np.uint8)


def _half_blocks(pixels: Pixels) -> str:
    """Two pixels a cell: the upper one is the character's colour, the lower one its ground."""
    lines = []
    for upper, lower in zip(pixels[0::2].tolist(), pixels[1::2].tolist(), strict=True):
        line = "".join(
            f"\x1b[38;2;{a[0]};{a[1]};{a[2]};48;2;{b[0]};{b[1]};{b[2]}m▀" for a, b in zip(upper, lower, strict=True)
        )
        lines.append(line + "\x1b[0m\n")
    return "".join(lines)


def _kitty(png: bytes, columns: int) -> str:
    """Transmit and show (``a=T``) a PNG (``f=100``) in chunks, ask for no reply (``q=2``)."""
    text = base64.b64encode(png).decode()
    chunks = [text[start : start + _CHUNK_CHARS] for start in range(0, len(text), _CHUNK_CHARS)]
    sent = []
    for number, chunk in enumerate(chunks, 1):
        keys = f"a=T,f=100,q=2,c={columns}," if number == 1 else ""
        sent.append(f"\x1b_G{keys}m={int(number < len(chunks))};{chunk}\x1b\\")
    return "".join(sent) + "\n"


def _iterm2(picture: bytes, columns: int) -> str:
    keys = f"inline=1;size={len(picture)};width={columns};preserveAspectRatio=1"
    return f"\x1b]1337;File={keys}:{base64.b64encode(picture).decode()}\a\n"
