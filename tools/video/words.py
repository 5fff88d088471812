"""What is said in a video, from the subtitles inside it or beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from keyeloop.tools.confined.errors import Unusable
from keyeloop.tools.video.child.subtitles import READ, Cue, Track
from keyeloop.tools.video.decoder import Decoder

SIDECARS = (".srt", ".vtt", ".ass", ".ssa")
_TRACKS = TypeAdapter(tuple[Track, ...])


@dataclass(frozen=True)
class Words:
    """One track of a video: where it is from, its language as the file tells it, and its cues in order."""

    origin: str
    """``stream 1`` inside the video, or the name of the file beside it."""
    language: str
    title: str
    cues: tuple[Cue, ...]
    problem: str = ""
    """Why it has no cues that can be read."""


def read_words(path: str, decoder: Decoder) -> tuple[Words, ...]:
    """All subtitles of a video: embedded streams first, then files beside it (``talk.srt``, ``talk.en.vtt``).

    A file beside the video counts when it is a regular file in the same folder whose name begins with the video's
    without its ending. Both are read in the guarded child. Raises Unusable for a video that cannot be read; of
    a file beside it that cannot, the problem is told.
    """
    found = [
        Words(f"stream {place}", track.language, track.title, track.cues, _problem(track))
        for place, track in enumerate(_ask(decoder, path, "words"), 1)
    ]
    for file in _beside(Path(path)):
        language = file.name[len(Path(path).stem) : -len(file.suffix)].strip(".")
        try:
            (track,) = _ask(decoder, str(file), "words beside")
        except Unusable as error:
            found.append(Words(file.name, language, "", (), str(error)))
        else:
            found.append(Words(file.name, language, "", track.cues))
    return tuple(found)


def _problem(track: Track) -> str:
    if track.cues:
        return ""
    return "is empty" if track.codec in READ else f"is coded as {track.codec}, pictures of words"


def _beside(video: Path) -> list[Path]:
    try:
        names = sorted(file for file in video.parent.iterdir() if file.suffix.lower() in SIDECARS)
    except OSError:
        return []
    kept = [file for file in names if file.stem == video.stem or file.stem.startswith(f"{video.stem}.")]
    return [file for file in kept if file.is_file() and not file.is_symlink()]


def _ask(decoder: Decoder, path: str, op: str) -> tuple[Track, ...]:
    _, payload = decoder.ask(path, {"op": op})
    try:
        return _TRACKS.validate_python(json.loads(payload))
    except (ValueError, ValidationError):
        raise Unusable("made the decoder answer nonsense: it is damaged or hostile; convert it to mp4") from None
