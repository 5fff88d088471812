"""The edit list of an mp4 (ISO/IEC 14496-12, 8.6.6): from where to where its first track is shown."""

from __future__ import annotations

import struct
from collections.abc import Iterator


def shown_for(data: bytes, duration_s: float) -> bytes:
    """The file with its first track ending ``duration_s`` after what its edit list begins with; else as it is."""
    moov = _child(data, (0, len(data)), b"moov")
    header = moov and _child(data, moov, b"mvhd")
    trak = moov and _child(data, moov, b"trak")
    edits = trak and _child(data, trak, b"edts")
    entries = edits and _child(data, edits, b"elst")
    if not header or not entries:
        return data
    per_s = struct.unpack_from(">I", data, header[0] + (20 if data[header[0]] else 12))[0]
    wide = data[entries[0]] == 1
    count = struct.unpack_from(">I", data, entries[0] + 4)[0]
    layout = ">Qq" if wide else ">Ii"
    changed = bytearray(data)
    for place in range(count):
        at = entries[0] + 8 + place * (struct.calcsize(layout) + 4)
        _, media_time = struct.unpack_from(layout, data, at)
        if media_time >= 0:
            struct.pack_into(layout, changed, at, round(duration_s * per_s), media_time)
            return bytes(changed)
    return data


def _child(data: bytes, within: tuple[int, int], name: bytes) -> tuple[int, int] | None:
    """Where the body of the first box called ``name`` begins and ends."""
    return next(((start, end) for kind, start, end in _boxes(data, within) if kind == name), None)


def _boxes(data: bytes, within: tuple[int, int]) -> Iterator[tuple[bytes, int, int]]:
    at, end = within
    while at + 8 <= end:
        length, kind = struct.unpack_from(">I4s", data, at)
        body = at + 8
        if length == 1:
            length, body = struct.unpack_from(">Q", data, body)[0], at + 16
        if length < 8:
            return
        yield kind, body, min(end, at + length)
        at += length
