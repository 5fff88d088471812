"""Recorded voices that a package ships, fetched once into a cache of this user: none of them is part of the project."""

from __future__ import annotations

import subprocess
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

CACHE = Path.home() / ".cache" / "keyeloop-tests" / "speech"
VOICES = ("Front_Center", "Rear_Left", "Side_Right")
"""Recordings of Debian's package alsa-utils (GPL-2), 1 MB; each says its name."""


def voices() -> dict[str, Path]:
    """Fetch and unpack the package where it is not there yet. Raises OSError on a machine without Debian's mirrors."""
    if not all((CACHE / f"{name}.wav").is_file() for name in VOICES):
        CACHE.mkdir(parents=True, exist_ok=True)
        _run(["apt-get", "download", "-q", "alsa-utils"])
        (package,) = CACHE.glob("alsa-utils_*.deb")
        _run(["dpkg-deb", "-x", str(package), "unpacked"])
        for name in VOICES:
            (found,) = (CACHE / "unpacked").rglob(f"{name}.wav")
            found.replace(CACHE / f"{name}.wav")
        package.unlink()
        _run(["rm", "-rf", "unpacked"])
    return {name: CACHE / f"{name}.wav" for name in VOICES}


def samples_of(file: Path, rate_hz: int) -> NDArray[np.int16]:
    """A recording as one channel of 16-bit samples."""
    resampler = av.AudioResampler("s16", "mono", rate_hz)
    with av.open(str(file)) as opened:
        return np.concatenate(
            [made.to_ndarray()[0] for frame in opened.decode(audio=0) for made in resampler.resample(frame)]
        )


def _run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=CACHE, capture_output=True, text=True, timeout=240, check=False)
    if done.returncode:
        raise OSError(f"{command[0]}: {(done.stderr or done.stdout).strip()[-200:]}")
