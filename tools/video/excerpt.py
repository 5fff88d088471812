"""Cutting a playable clip file out of a video."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from keyeloop.runtime.errors import InputError
from keyeloop.tools.confined.errors import Unusable
from keyeloop.tools.video.decoder import CPU_S, Decoder

CPU_S_PER_SECOND = 6.0
"""Allowed for encoding a second of video anew, on top of what any request may take."""


@dataclass(frozen=True)
class ClipFile:
    """An mp4 file that shows whole frames of a video, from ``start_s`` to ``end_s`` in the video's own time."""

    path: Path
    start_s: float
    end_s: float
    frames: int
    copied: bool
    """Whether its pictures are the source's own bits; False where they were encoded anew (H.264, nearly lossless)."""
    sound: bool
    """Whether the sound of that time is in it."""


def cut_clip(
    video: str | Path,
    start_s: float,
    end_s: float | None,
    out: str | Path,
    *,
    copy: bool = True,
    force: bool = False,
    decoder: Decoder | None = None,
) -> ClipFile:
    """Write the frames on screen from ``start_s`` until ``end_s`` (seconds from the first frame) to ``out``, an mp4.

    ``end_s`` None is the end. Nothing is encoded anew where copied packets show exactly these frames in a player that
    follows edit lists, as FFmpeg's programs do; ``copy=False`` encodes always, with tone mapping, rotation and fields
    applied. The file is written whole or not at all; the video is read in a guarded process (``decoder``, or one for
    this call).

    Raises InputError for a video that cannot be read, a span outside it, a file that exists already without ``force``.
    """
    out = Path(out)
    if out.suffix != ".mp4" or not out.parent.is_dir():
        raise InputError(f"{out}: name an .mp4 file in a folder that exists")
    if out.exists() and not force:
        raise InputError(f"{out} exists already: name another file, or force it to be replaced")
    if decoder is None:
        with Decoder() as own:
            return cut_clip(video, start_s, end_s, out, copy=copy, force=force, decoder=own)
    try:
        duration_s = decoder.probe(str(video)).duration_s
        if duration_s is None:
            raise Unusable("is a picture, not a video; name a video")
        end_s = duration_s if end_s is None else end_s
        if not 0 <= start_s < min(end_s, duration_s):
            raise Unusable(
                f"lasts from 0 to {duration_s:.3f} s: from {start_s:g} to {end_s:g} s there is no span in it"
            )
        data, told = _excerpt(decoder, str(video), start_s, min(end_s, duration_s), copy)
    except Unusable as error:
        raise InputError(f"{video} {error}") from None
    _write(out, data, force)
    return ClipFile(out, *told)


def _excerpt(
    decoder: Decoder, path: str, start_s: float, end_s: float, copy: bool
) -> tuple[bytes, tuple[float, float, int, bool, bool]]:
    request = {"op": "excerpt", "start_s": float(start_s), "end_s": float(end_s), "copy": copy}
    reply, data = decoder.ask(path, request | {"cpu_s": CPU_S + CPU_S_PER_SECOND * (end_s - start_s)})
    first, last, frames = reply.get("start_s"), reply.get("end_s"), reply.get("frames")
    if not (isinstance(first, float) and isinstance(last, float) and isinstance(frames, int)) or not data:
        raise Unusable("made the decoder answer nonsense: it is damaged or hostile; convert it to h264 in mp4")
    return data, (first, last, frames, reply.get("copied") is True, reply.get("sound") is True)


def _write(out: Path, data: bytes, force: bool) -> None:
    partial = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if force:
            partial.replace(out)
        else:
            os.link(partial, out)  # fails where the file has come to be meanwhile
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror}); name another .mp4 file") from None
    finally:
        partial.unlink(missing_ok=True)
