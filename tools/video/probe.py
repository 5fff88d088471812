"""Declaring an input: what a file is, checked before a run begins."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from keyeloop.runtime.errors import InputError
from keyeloop.runtime.evidence import Source
from keyeloop.runtime.source import BackgroundHash
from keyeloop.tools.video.child.errors import Unusable
from keyeloop.tools.video.decoder import Decoder, require_file


def open_source(path: str | Path, name: str, *, decoder: Decoder | None = None) -> Source:
    """Declare a video or image file under the name that the model will use, hashing it while it is examined.

    Width and height are those of the displayed picture, rotation and pixel shape applied; ``duration_s`` counts from
    the first frame to the end of the last. ``decoder`` is used and left open; without one, a child lives for this call.
    Raises InputError, one line with cause and cure: no such file, a folder, text or a playlist, a video cut before its
    index, audio only, no frames, a format that is not allowed.
    """
    path = str(path)
    try:
        require_file(path)
        hashing = BackgroundHash(Path(path))
        with nullcontext(decoder) if decoder is not None else Decoder() as child:
            facts = child.probe(path)
    except Unusable as error:
        raise InputError(f"{path} {error}") from None
    return Source(name, facts.kind, hashing.sha256(), path, facts.width, facts.height, facts.duration_s)
