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
    if width > width_px:
        size = (width_px, max(1, round(height * width_px / width)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    made, encoded = cv2.imencode(".jpg", np.ascontiguousarray(pixels[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not made:
        raise ValueError("OpenCV wrote no JPEG")
    return encoded.tobytes()
