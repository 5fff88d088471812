"""Pictures of exported runs: copied once each into a folder beside the export, or written into it."""

from __future__ import annotations

import json
from pathlib import Path

from keyeloop.model_backend.served.pictures import data_url
from keyeloop.runtime.content import MediaRef, Video
from keyeloop.runtime.media import MediaStore

SUFFIXES = {"image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp"}
FOLDER = "images"


class ExportedPictures:
    """Names pictures in an export. Several exports may share a folder: a picture is there once."""

    def __init__(self, beside: Path | None) -> None:
        """``beside`` is the folder of the export; None writes pictures into it, as data URLs."""
        self._beside = beside

    def name(self, picture: MediaRef, media: MediaStore) -> str:
        """A path relative to the export, or a data URL. JournalError for a picture that is missing."""
        data = media.read(picture.sha256)
        if self._beside is None:
            return data_url(data, picture.mime).decode()
        path = Path(FOLDER) / (picture.sha256 + SUFFIXES.get(picture.mime, ""))
        place = self._beside / path
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        return path.as_posix()

    def still(self, picture: MediaRef, media: MediaStore) -> bytes:
        """A picture's name as JSON."""
        return json.dumps(self.name(picture, media)).encode()

    def clip(self, clip: Video, media: MediaStore) -> bytes:
        """Clips are written frame by frame; this has none."""
        raise NotImplementedError("a clip has no name of its own in an export")
