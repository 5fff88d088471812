"""Recorded pictures made small, so that a page of many stays light."""

from __future__ import annotations

import cv2
import numpy as np

from keyeloop.runtime.picture import decode_picture

QUALITY = 82


def small_picture(data: bytes, width_px: int) -> bytes:
    """The picture as JPEG, at most ``width_px`` wide. InputError for bytes that are no sound picture."""
    pixels = decode_picture(data)
    height, width = pixels.shape[:2]
    bgr = np.ascontiguousarray(pixels[:, :, ::-1])
    scale = min(1.0, width_px / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(bgr, size, interpolation=cv2.INTER_AREA)
    made, encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not made:
        raise ValueError("OpenCV wrote no JPEG")
    return encoded.tobytes()
