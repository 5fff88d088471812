"""Files that code left in ``/out``, fetched over the pipe and kept by the host within limits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Final

from keyeloop.runtime.errors import InputError
from keyeloop.sandbox.replies import ExecReply
from keyeloop.sandbox.results import Artifact
from keyeloop.sandbox.spec import OUTPUTS, Limits

_MAGIC: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x93NUMPY", "application/x-numpy"),
)


class KeptArtifacts:
    """The latest bytes of each artifact; they outlive the worker."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._kept: dict[PurePosixPath, tuple[Artifact, bytes]] = {}

    def collect(
        self, reply: ExecReply, read: Callable[[PurePosixPath, int], bytes]
    ) -> tuple[tuple[Artifact, ...], list[str]]:
        """Fetch what ``reply`` names with ``read(path, most_bytes)``; a line for each thing left out."""
        limits = self._limits
        found: list[Artifact] = []
        notes = list(reply.refused)
        for path, size in reply.files:
            self._kept.pop(path, None)
            room = limits.artifacts_total_bytes - sum(len(data) for _, data in self._kept.values())
            if len(self._kept) >= limits.artifact_count or size > min(room, limits.artifact_bytes):
                notes.append(f"artifact {str(path)!r} left out: too many or too large")
                continue
            try:
                data = read(OUTPUTS / path, min(room, limits.artifact_bytes))
            except InputError as error:
                notes.append(f"artifact {str(path)!r} left out: {error}")
                continue
            found.append(Artifact(path, len(data), hashlib.sha256(data).hexdigest(), mime_of(data)))
            self._kept[path] = (found[-1], data)
        return tuple(found), notes

    def find(self, path: PurePosixPath) -> bytes | None:
        """The bytes of the artifact at this absolute path inside, if it is one."""
        kept = self._kept.get(path.relative_to(OUTPUTS)) if path.is_relative_to(OUTPUTS) else None
        return kept[1] if kept else None

    def all(self) -> tuple[Artifact, ...]:
        """Every artifact, in the order of their last change."""
        return tuple(artifact for artifact, _ in self._kept.values())

    def clear(self) -> None:
        """Forget them."""
        self._kept.clear()


def mime_of(data: bytes) -> str:
    """The kind of a file by its first bytes; text where it is UTF-8 without zeros."""
    for magic, mime in _MAGIC:
        if data.startswith(magic):
            return mime
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return "application/octet-stream"
    return "application/octet-stream" if b"\0" in data else "text/plain"
