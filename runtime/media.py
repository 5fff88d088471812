"""Pictures by content: stored once under the sha256 of their bytes, checked before they enter."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path

from keyeloop.runtime.content import MediaRef
from keyeloop.runtime.errors import InputError, JournalError
from keyeloop.runtime.picture import Pixels, decode_picture, encode_picture, read_header

_SHA256 = re.compile(r"[0-9a-f]{64}")


class MediaStore:
    """A folder of pictures, each under ``ab/abcdef...`` by the sha256 of its bytes; nothing in it is ever changed.

    Where several stores have the same ``shared`` folder on their disk, a picture takes its bytes once for all of them:
    its files are links.
    """

    def __init__(self, root: Path, *, shared: Path | None = None) -> None:
        self.root, self.shared = root, shared
        self._made: set[MediaRef] = set()

    def put_image(self, pixels: Pixels) -> MediaRef:
        """Store height x width x 3 uint8 RGB pixels as canonical JPEG: same pixels, same bytes, same address.

        Raises InputError for any other shape or type.
        """
        height, width = pixels.shape[:2] if pixels.ndim >= 2 else (0, 0)
        return self._put(encode_picture(pixels), "image/jpeg", width, height)

    def put_bytes(self, data: bytes) -> MediaRef:
        """Store an encoded picture (JPEG, PNG or WebP) as it is, after decoding it whole.

        What a reader could show differently (a rotation mark, transparency) is stored as canonical JPEG instead.
        Raises InputError for bytes that are no sound picture.
        """
        pixels = decode_picture(data)
        height, width = pixels.shape[:2]
        header = read_header(data)
        if header.mime == "image/jpeg" and (header.width, header.height) == (width, height) and b"Exif\0" not in data:
            return self._put(data, header.mime, width, height)
        if header.mime == "image/png" and data[24:26] == b"\x08\x02":  # 8 bits a channel, RGB, no alpha
            return self._put(data, header.mime, width, height)
        return self.put_image(pixels)

    def read(self, sha256: str) -> bytes:
        """The bytes stored under ``sha256``; JournalError when they are missing or no longer match it."""
        path = self.path(sha256)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise JournalError(f"no media {sha256} in {self.root}: was it copied along with its run?") from None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise JournalError(f"media file {path} does not match its name: it was changed after it was stored")
        return data

    def pixels(self, ref: MediaRef) -> Pixels:
        """Decoded picture, height x width x 3 of uint8 RGB."""
        return decode_picture(self.read(ref.sha256))

    def made(self, ref: MediaRef) -> bool:
        """Whether this very reference is one that this object gave for a picture it had whole."""
        return ref in self._made

    def path(self, sha256: str) -> Path:
        """Where a picture with this sha256 is or would be; InputError for anything that is not one."""
        if not _SHA256.fullmatch(sha256):
            raise InputError(f"{sha256!r} is not a sha256 in lower-case hexadecimal")
        return self.root / sha256[:2] / sha256

    def _put(self, data: bytes, mime: str, width: int, height: int) -> MediaRef:
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.path(sha256)
        if not path.exists():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise JournalError(f"the picture {path} could not be written: {error.strerror}") from error
            if not self._linked(path, data):
                _write(path, data)
                self._share(path)
        ref = MediaRef(sha256, mime, len(data), width, height)
        self._made.add(ref)
        return ref

    def _linked(self, path: Path, data: bytes) -> bool:
        """Link the picture that another store put into the shared folder, if it is there and sound."""
        if self.shared is None:
            return False
        try:
            origin = self.shared / path.parent.name / path.name
            if origin.read_bytes() != data:
                origin.unlink()  # it was damaged there
                return False
            os.link(origin, path)
        except FileExistsError:
            return True
        except OSError:
            return False
        return True

    def _share(self, path: Path) -> None:
        """Let other stores link a picture; where the disk knows no links, each keeps its own."""
        if self.shared is None:
            return
        place = self.shared / path.parent.name / path.name
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, place)
        except OSError:
            return


def _write(path: Path, data: bytes) -> None:
    draft = None
    try:
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".draft-")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(path)
    except BaseException as error:
        if draft is not None:
            Path(draft).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise JournalError(f"the picture {path} could not be written: {error.strerror}") from error
        raise
