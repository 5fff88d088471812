"""Pictures and clips as they stand in a request: by value, or by reference where client and server share a store."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from keyeloop.model_backend.served.pictures import PictureUrls
from keyeloop.model_backend.sglang.wire import CLIP, reference
from keyeloop.runtime.content import MediaRef, Video
from keyeloop.runtime.media import MediaStore


class PictureNames:
    """Names of pictures for one server; each is encoded once, or put into the shared store once."""

    def __init__(self, shared: Path | None) -> None:
        """``shared`` is the folder of pictures that the server reads; without it pictures travel by value."""
        self._shared = None if shared is None else MediaStore(shared)
        self._there: set[str] = set()
        self.urls = PictureUrls()

    def still(self, picture: MediaRef, media: MediaStore) -> bytes:
        """A still's name as JSON."""
        return b'"%s"' % self._name(picture, media)

    def clip(self, clip: Video, media: MediaStore) -> bytes:
        """A clip's name as JSON: what :func:`keyeloop.model_backend.sglang.wire.clip_url` gives, in quotes."""
        rows = [
            rb"[%s,\"%s\"]" % (repr(float(time_s)).encode(), self._name(frame.media, media))
            for time_s, frame in zip(clip.times_s, clip.frames, strict=True)
        ]
        return rb'"%s{\"frames\":[%s]}"' % (CLIP.encode(), b",".join(rows))

    def missing(self, pictures: Iterable[MediaRef]) -> int:
        """How many of these are still to be read."""
        return self.urls.missing(one for one in pictures if one.sha256 not in self._there)

    def clear(self) -> None:
        """Forget what was encoded and put."""
        self.urls.clear()
        self._there.clear()

    def _name(self, picture: MediaRef, media: MediaStore) -> bytes:
        if self._shared is not None:
            if picture.sha256 not in self._there and _put(picture.sha256, media, self._shared):
                self._there.add(picture.sha256)
            if picture.sha256 in self._there:
                return reference(picture.sha256).encode()
        return self.urls.url(picture, media)


def _put(sha256: str, media: MediaStore, shared: MediaStore) -> bool:
    """Put a picture where the server finds it; False where that cannot be written to."""
    origin, place = media.path(sha256), shared.path(sha256)
    if place.is_file():
        return True
    media.read(sha256)  # its error, where the picture is missing or was changed
    try:
        place.parent.mkdir(exist_ok=True)
        try:
            os.link(origin, place)
        except OSError:  # another file system, or one without links
            draft = place.with_name(f".draft-{uuid4().hex}")
            try:
                shutil.copyfile(origin, draft)
                draft.replace(place)
            finally:
                with suppress(FileNotFoundError):
                    draft.unlink()
    except OSError:
        return place.is_file()
    return True
