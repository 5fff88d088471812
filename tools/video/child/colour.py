"""Phone video in high dynamic range (BT.2100: PQ or HLG, BT.2020 primaries) made fit for an ordinary screen.

Light well below reference white stays as it is; what is brighter, up to 1000 cd/m2, is pressed into the room that is
left, by one curve for every frame, so that the same frame is always the same picture.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from keyeloop.tools.video.child.picture import Pixels

PQ, HLG = 16, 18
"""Transfer characteristics as ITU-T H.273 numbers them."""
PEAK_NITS = 1000.0
WHITE_NITS = 203.0
"""What white paper is in high dynamic range (ITU-R BT.2408), and white on the screen that we make it for."""
_TO_BT709 = np.array(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]], np.float32
)
"""Linear BT.2020 to linear BT.709 (ITU-R BT.2087)."""
_LUMA = np.array([[0.2627, 0.6780, 0.0593]], np.float32)
_CODES = 1 << 16
_STEPS = 1 << 12


def to_screen(pixels: NDArray[np.uint16], transfer: int) -> Pixels:
    """Height x width x 3 of BT.2020 RGB of full range, as RGB of uint8 for a screen (BT.709, sRGB curve)."""
    light = _linear(transfer)[pixels]
    if transfer == HLG:  # the display's own gamma, on luminance (BT.2100 table 5)
        luminance = np.atleast_3d(cv2.transform(light, _LUMA))
        light *= PEAK_NITS * np.power(np.maximum(luminance, 1e-6), 0.2)
    strongest = light.max(axis=2, keepdims=True)
    nits, shown = _roll_off()
    light *= np.interp(strongest, nits, shown).astype(np.float32) / np.maximum(strongest, 1e-6)
    screen = cv2.transform(light, _TO_BT709 / np.float32(WHITE_NITS)).reshape(pixels.shape)
    steps = np.clip(screen * (_STEPS - 1) + 0.5, 0, _STEPS - 1).astype(np.uint16)
    return np.asarray(_srgb()[steps], np.uint8)


@cache
def _linear(transfer: int) -> NDArray[np.float32]:
    """Light of every code: cd/m2 for PQ (SMPTE ST 2084), scene light from 0 to 1 for HLG (BT.2100 table 5)."""
    codes = np.arange(_CODES) / (_CODES - 1)
    if transfer == PQ:
        return _nits(codes).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(codes <= 0.5, codes**2 / 3, (np.exp((codes - c) / a) + b) / 12).astype(np.float32)


@cache
def _roll_off() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nits and what becomes of them: the Hermite knee of ITU-R BT.2390 section 5.4.1, from the peak down to white."""
    peak = float(_code(np.float64(PEAK_NITS)))
    codes = np.linspace(0, 1, 1024)
    most = float(_code(np.float64(WHITE_NITS))) / peak
    knee = 1.5 * most - 0.5
    part = np.clip((codes - knee) / (1 - knee), 0, 1)
    bent = (
        (2 * part**3 - 3 * part**2 + 1) * knee
        + (part**3 - 2 * part**2 + part) * (1 - knee)
        + (-2 * part**3 + 3 * part**2) * most
    )
    return _nits(codes * peak), _nits(np.where(codes < knee, codes, bent) * peak)


@cache
def _srgb() -> Pixels:
    """Code of every step of light (IEC 61966-2-1)."""
    light = np.linspace(0, 1, _STEPS)
    coded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray(np.round(coded * 255), np.uint8)


_M1, _M2, _C1, _C2, _C3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875


def _nits(code: NDArray[np.float64]) -> NDArray[np.float64]:
    power = code ** (1 / _M2)
    return np.asarray(10_000 * (np.maximum(power - _C1, 0) / (_C2 - _C3 * power)) ** (1 / _M1))


def _code(nits: NDArray[np.float64] | np.float64) -> NDArray[np.float64]:
    power = (nits / 10_000) ** _M1
    return np.asarray(((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2)
