"""Bodies that were packed for the way (Content-Encoding), unpacked piece by piece and never beyond a cap."""

from __future__ import annotations

import zlib

from keyeloop.runtime.errors import ToolError

ACCEPTED = "gzip, deflate"
_GZIP_OR_ZLIB, _RAW = 47, -15


class Inflater:
    """Collects a body, unpacking as it comes; holds at most ``cap_bytes`` of it."""

    def __init__(self, encoding: str, cap_bytes: int, where: str) -> None:
        """``encoding`` is the header's value. Raises ToolError for one that was not asked for."""
        self._cap_bytes, self._where = cap_bytes, where
        self._body = bytearray()
        name = encoding.strip().lower()
        self._packed = name in ("gzip", "x-gzip", "deflate")
        if not self._packed and name not in ("", "identity"):
            raise ToolError(f"{where} was sent packed as {encoding!r}, which cannot be read: only {ACCEPTED}")
        self._deflate = name == "deflate"
        self._engine = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._begun = False

    def feed(self, piece: bytes) -> None:
        """Take the next piece. Raises ToolError when the body grows over the cap or is damaged."""
        if not self._packed:
            self._keep(piece)
            return
        while piece:
            try:
                out = self._engine.decompress(piece, self._cap_bytes - len(self._body) + 1)
            except zlib.error:
                if self._begun or not self._deflate:
                    raise ToolError(f"{self._where} was sent packed, and is damaged: try again") from None
                self._engine = zlib.decompressobj(_RAW)  # some servers leave the zlib header out
                self._begun = True
                continue
            self._begun = True
            self._keep(out)
            if self._engine.eof:
                piece = self._engine.unused_data
                self._engine = zlib.decompressobj(_GZIP_OR_ZLIB)
            else:
                piece = self._engine.unconsumed_tail

    def body(self) -> bytes:
        """Everything that came."""
        return bytes(self._body)

    def _keep(self, piece: bytes) -> None:
        self._body += piece
        if len(self._body) > self._cap_bytes:
            raise too_large(self._where, self._cap_bytes)


def too_large(where: str, cap_bytes: int) -> ToolError:
    """What is said of a body that is larger than is taken."""
    return ToolError(
        f"{where} is larger than {cap_bytes / 1e6:g} MB, unpacked: it was stopped there; open a smaller page"
    )
