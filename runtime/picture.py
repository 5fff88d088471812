"""Picture bytes: known by their first bytes, measured before decoding, checked whole; one canonical encoding."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from keyeloop.runtime.errors import InputError

Pixels = NDArray[np.uint8]
"""Height x width x 3, red green blue, 0 to 255."""

MAX_PIXELS = 100_000_000
"""A header that claims more is refused before anything is decoded."""

JPEG_QUALITY = 95

_CANONICAL = (
    cv2.IMWRITE_JPEG_QUALITY,
    JPEG_QUALITY,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
)


class PictureHeader(NamedTuple):
    """What the first bytes claim, before decoding. Sizes are pixels as stored, before any rotation mark."""

    mime: str
    width: int
    height: int


def encode_picture(pixels: Pixels) -> bytes:
    """Canonical JPEG (quality 95, no colour subsampling): the same pixels always give the same bytes.

    Raises InputError unless ``pixels`` is a non-empty height x width x 3 array of uint8.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise InputError(f"a picture must be height x width x 3 of uint8 (RGB), got {pixels.shape} of {pixels.dtype}")
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(pixels[:, :, ::-1]), _CANONICAL)
    if not done:
        raise InputError(f"a picture of {pixels.shape[1]}x{pixels.shape[0]} pixels could not be encoded as JPEG")
    return data.tobytes()


def decode_picture(data: bytes) -> Pixels:
    """Pixels of a whole, sound picture, turned upright as its rotation mark says; transparency is laid over white.

    Raises InputError for an unknown type, a damaged or cut file, or more than ``MAX_PIXELS``.
    """
    header = read_header(data)
    if header.width * header.height > MAX_PIXELS:
        raise InputError(f"picture of {header.width}x{header.height} pixels is too large: at most {MAX_PIXELS} pixels")
    if _is_cut(header.mime, data):
        raise InputError(f"{header.mime} picture is cut short or damaged ({len(data)} bytes): save it again")
    flags = cv2.IMREAD_COLOR if header.mime == "image/jpeg" else cv2.IMREAD_UNCHANGED
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        decoded = None
    if decoded is None:
        raise InputError(f"{header.mime} picture cannot be decoded ({len(data)} bytes): save it again")
    return _to_rgb(decoded)


def read_header(data: bytes) -> PictureHeader:
    """Type and stored size of a JPEG, PNG or WebP picture; InputError for anything else."""
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return PictureHeader("image/png", *struct.unpack_from(">II", data, 16))
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg_header(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp_header(data)
    except (struct.error, IndexError):
        raise InputError(f"picture is cut within its header ({len(data)} bytes)") from None
    start = data[:12].hex(" ") or "nothing"
    raise InputError(f"not a picture that can be used (JPEG, PNG or WebP): the first bytes are {start}")


def _jpeg_header(data: bytes) -> PictureHeader:
    offset = 2
    while True:
        if data[offset] != 0xFF:
            raise InputError(f"JPEG picture is damaged at byte {offset}")
        marker = data[offset + 1]
        if marker == 0xFF:  # fill byte
            offset += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, offset + 5)
            return PictureHeader("image/jpeg", width, height)
        offset += 2 + int(struct.unpack_from(">H", data, offset + 2)[0])


def _webp_header(data: bytes) -> PictureHeader:
    chunk = data[12:16]
    if chunk == b"VP8X":
        return PictureHeader(
            "image/webp", 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
        )
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return PictureHeader("image/webp", 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    width, height = struct.unpack_from("<HH", data, 26)
    return PictureHeader("image/webp", width & 0x3FFF, height & 0x3FFF)


def _is_cut(mime: str, data: bytes) -> bool:
    if mime == "image/jpeg":
        return b"\xff\xd9" not in data[-4096:]
    if mime == "image/png":
        return b"IEND\xaeB`\x82" not in data[-4096:]
    return len(data) < 8 + int(struct.unpack_from("<I", data, 4)[0])


def _to_rgb(decoded: NDArray[Any]) -> Pixels:
    if decoded.dtype == np.uint16:
        decoded = decoded >> 8
    elif decoded.dtype != np.uint8:
        raise InputError(f"picture has samples of {decoded.dtype}: save it with 8 bits a channel")
    layers = decoded[:, :, None] if decoded.ndim == 2 else decoded
    colour = layers[:, :, 2::-1] if layers.shape[2] >= 3 else np.repeat(layers[:, :, :1], 3, axis=2)
    if layers.shape[2] in (2, 4):
        alpha = layers[:, :, -1:].astype(np.uint32)
        colour = (colour * alpha + 255 * (255 - alpha) + 127) // 255
    return np.ascontiguousarray(colour, dtype=np.uint8)
