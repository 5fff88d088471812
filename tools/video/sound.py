"""The sound of a video as samples, decoded in the guarded child."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from keyeloop.tools.confined.errors import Unusable
from keyeloop.tools.video.decoder import CPU_S, Decoder

RATE_HZ = 16_000
"""Samples a second that are asked for: what recognisers of speech take."""
CPU_S_PER_SECOND = 0.2

Samples = NDArray[np.float32]
"""One channel of sound, from -1 to 1, ``RATE_HZ`` a second."""


def hear(path: str, start_s: float, end_s: float, decoder: Decoder) -> Samples:
    """The sound from ``start_s`` to ``end_s`` (seconds from the first frame), silence where the file has none.

    Raises Unusable for a video that has no sound, or none that can be decoded.
    """
    request = {"op": "hear", "start_s": float(start_s), "end_s": float(end_s), "rate": RATE_HZ}
    _, data = decoder.ask(path, request | {"cpu_s": CPU_S + CPU_S_PER_SECOND * (end_s - start_s)})
    if len(data) != 2 * round((end_s - start_s) * RATE_HZ):
        raise Unusable("made the decoder answer nonsense: it is damaged or hostile; convert it to h264 in mp4")
    return np.frombuffer(data, np.int16).astype(np.float32) / np.float32(32768)
