"""Recorded pictures made small, so that a page of many stays light."""

from __future__ import annotations

import cv2
import numpy as np

from keyeloop.runtime.picture import MAX_PIXELS, Pixels, decode_picture, read_header

QUALITY = 82
REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
"""By how much the decoder of a JPEG can leave detail out, which is several times faster."""


def small_picture(data: bytes, width_px: int) -> bytes:
    """The picture as JPEG, at most ``width_px`` wide. InputError for bytes that are no sound picture."""
    bgr = _decoded(data, width_px)
    height, width = bgr.shape[:2]
    scale = min(1.0, width_px / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(bgr, size, interpolation=cv2.INTER_AREA)
    made, encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not made:
        raise ValueError("OpenCV wrote no JPEG")
    return encoded.tobytes()


def _decoded(data: bytes, width_px: int) -> Pixels:
    """Blue, green, red; with no more detail than ``width_px`` pixels a row need."""
    header = read_header(data)
    if header.mime == "image/jpeg" and header.width * header.height <= MAX_PIXELS:
        for factor, flag in REDUCED.items():
            if header.width >= factor * width_px:
                found = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
                if found is not None:
                    return np.asarray(found, np.uint8)
    return np.ascontiguousarray(decode_picture(data)[:, :, ::-1])
