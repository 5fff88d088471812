"""One open still image: decoded once, upright."""

from __future__ import annotations

import os
from collections.abc import Iterator

from keyeloop.runtime.errors import InputError
from keyeloop.runtime.picture import decode_picture
from keyeloop.tools.confined.errors import Unusable
from keyeloop.tools.video.child.picture import Pixels

MAX_FILE_BYTES = 256 << 20


class StillReader:
    """The pixels of a JPEG, PNG or WebP file."""

    def __init__(self, fd: int) -> None:
        """Takes over ``fd``. Raises Unusable for a picture that is damaged, cut or too large."""
        try:
            size = os.fstat(fd).st_size
            if size > MAX_FILE_BYTES:
                raise Unusable(f"is a picture of {size} bytes; {MAX_FILE_BYTES} is the limit, make it smaller")
            data = b"".join(_blocks(fd))
        finally:
            os.close(fd)
        try:
            self.pixels: Pixels = decode_picture(data)
        except InputError as error:
            raise Unusable(f"cannot be used: {error}") from None
        self.width, self.height = self.pixels.shape[1], self.pixels.shape[0]

    def close(self) -> None:
        """Free the pixels."""
        del self.pixels


def _blocks(fd: int) -> Iterator[bytes]:
    at = 0
    while block := os.pread(fd, 1 << 20, at):
        yield block
        at += len(block)
