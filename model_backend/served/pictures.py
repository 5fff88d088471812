"""Pictures as data URLs, each encoded once."""

from __future__ import annotations

import base64
import threading
from collections import OrderedDict
from collections.abc import Iterable

from keyeloop.runtime.content import MediaRef
from keyeloop.runtime.media import MediaStore

KEPT_BYTES = 512 << 20
"""Encoded pictures that are kept; the longest unused go first."""


INLINE_PICTURES = 4
"""So many are encoded at once, in the event loop; more than that in a thread."""


class PictureUrls:
    """The data URL of every picture that was sent, by content. Threads may share it."""

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self.encoded = 0
        """How many times a picture was read and encoded."""
        self._kept_bytes = kept_bytes
        self._held_bytes = 0
        self._urls: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def url(self, picture: MediaRef, media: MediaStore) -> bytes:
        """``data:image/jpeg;base64,...`` of a stored picture; nothing in it needs an escape in JSON.

        Raises what ``media`` does for a picture that is missing or was changed.
        """
        with self._lock:
            if picture.sha256 in self._urls:
                self._urls.move_to_end(picture.sha256)
                return self._urls[picture.sha256]
            url = data_url(media.read(picture.sha256), picture.mime)
            self.encoded += 1
            self._urls[picture.sha256] = url
            self._held_bytes += len(url)
            while self._held_bytes > self._kept_bytes and len(self._urls) > 1:
                _, old = self._urls.popitem(last=False)
                self._held_bytes -= len(old)
            return url

    def missing(self, pictures: Iterable[MediaRef]) -> int:
        """How many of these are still to be read and encoded."""
        return sum(picture.sha256 not in self._urls for picture in pictures)

    def clear(self) -> None:
        """Drop all of them."""
        with self._lock:
            self._urls.clear()
            self._held_bytes = 0


def data_url(data: bytes, mime: str) -> bytes:
    """Bytes as a data URL."""
    return b"data:%s;base64,%s" % (mime.encode(), base64.b64encode(data))
