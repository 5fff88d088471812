"""Declaring an input: what a file is, checked before a run begins."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from keyeloop.runtime.errors import InputError
from keyeloop.runtime.evidence import Source
from keyeloop.runtime.source import BackgroundHash
from keyeloop.tools.confined.errors import Unusable
from keyeloop.tools.video.decoder import Decoder, Facts, require_file


class Examined(NamedTuple):
    """A file that can be looked at, and whose hash is still being computed."""

    name: str
    path: str
    facts: Facts
    hashing: BackgroundHash | None
    """None where it is not hashed at all."""

    def source(self) -> Source:
        """The declared input; waits for the hash. Raises InputError for a file that changed meanwhile."""
        facts, sha256 = self.facts, "" if self.hashing is None else self.hashing.sha256()
        return Source(self.name, facts.kind, sha256, self.path, facts.width, facts.height, facts.duration_s)


def examine(path: str | Path, name: str, decoder: Decoder, *, hashed: bool = True) -> Examined:
    """Find out what a video or image file is, and begin to hash it, unless it shall not be ``hashed``.

    Width and height are those of the displayed picture, rotation and pixel shape applied; ``duration_s`` counts from
    the first frame to the end of the last. ``decoder`` is used and left open. Raises InputError, one line with cause
    and cure: no such file, a folder, text or a playlist, a video cut before its index, audio only, no frames, a format
    that is not allowed.
    """
    path = str(path)
    try:
        require_file(path)
        hashing = BackgroundHash(Path(path)) if hashed else None
        return Examined(name, path, decoder.probe(path), hashing)
    except Unusable as error:
        raise InputError(f"{path} {error}") from None


def open_source(path: str | Path, name: str, *, decoder: Decoder | None = None) -> Source:
    """Declare a video or image file under the name that the model will use; see :func:`examine`.

    Without a ``decoder``, a child lives for this call.
    """
    with nullcontext(decoder) if decoder is not None else Decoder() as child:
        return examine(path, name, child).source()
