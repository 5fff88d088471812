"""Which demuxer or image decoder a file gets, by its first bytes alone: an allow-list, nothing is probed.

libavformat is never asked to guess, because its guesses include playlists, which open other files and addresses.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Literal

from keyeloop.tools.confined.errors import Unusable

HEAD_BYTES = 4096
VIDEO_FORMATS = "mp4, mov, mkv, webm, avi, mpeg-ts, mpeg, flv, ogg, asf/wmv, gif, or a bare h264 or h265 stream"
IMAGE_FORMATS = "jpeg, png or webp"

_PLAYLISTS = (
    (b"#extm3u", "an HLS playlist"),
    (b"ffconcat", "an ffconcat playlist"),
    (b"file ", "a concat playlist"),
    (b"file\t", "a concat playlist"),
    (b"v=0", "an SDP session description"),
    (b"[playlist]", "a PLS playlist"),
    (b"[reference]", "an ASX reference file"),
    (b"<asx", "an ASX playlist"),
    (b"rtsptext", "a QuickTime redirect"),
    (b"smiltext", "a SMIL redirect"),
)
_XML_PLAYLISTS = ((b"<mpd", "a DASH manifest"), (b"<smil", "a SMIL playlist"), (b"<playlist", "an XSPF playlist"))
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"moof", b"uuid")
_STILL_BRANDS = (b"avif", b"heic", b"heix", b"mif1", b"heif")
_AUDIO = ((b"ID3", "mp3"), (b"fLaC", "flac"), (b"#!AMR", "amr"), (b"MThd", "midi"), (b".snd", "au"))
_UNIT = re.compile(rb"\0?\0\0\x01[\0-\x7f]")
_H264_SET, _H265_SET = re.compile(rb"\0\0\x01[\x27\x47\x67]"), re.compile(rb"\0\0\x01[\x40\x42]\x01")
"""Parameter sets, which a bare stream begins with."""
_ASF = bytes.fromhex("3026b2758e66cf11")


@dataclass(frozen=True)
class Container:
    """How to open a file: as a still with OpenCV, or as a video with one named demuxer of libavformat."""

    kind: Literal["video", "image"]
    demuxer: str
    """libavformat's name of the demuxer; for a still, the name of the image format."""


def sniff(fd: int) -> Container:
    """Choose the one decoder that may open this file, by its magic bytes.

    Raises Unusable for an empty file, a playlist, text, bare audio and every format that is not allowed.
    """
    head = os.pread(fd, HEAD_BYTES, 0)
    if not head:
        raise Unusable("is empty (0 bytes); copy or download it again")
    found = _video(head) or _image(head)
    if found is not None:
        return found
    _refuse_playlist(head)
    for magic, name in _AUDIO:
        if head.startswith(magic):
            raise Unusable(f"holds only audio ({name}), nothing to look at; pass a video or an image")
    if _looks_like_text(head):
        raise Unusable("is a text file, not a video or an image; pass the media file itself")
    mpeg_audio = head[0] == 0xFF and len(head) > 1 and head[1] & 0xE0 == 0xE0
    if mpeg_audio or (head[:4] == b"RIFF" and head[8:12] == b"WAVE"):
        raise Unusable("holds only audio, nothing to look at; pass a video or an image")
    raise Unusable(f"is no video ({VIDEO_FORMATS}) and no image ({IMAGE_FORMATS}); convert it to mp4 or png")


def _video(head: bytes) -> Container | None:
    demuxer = None
    if head[4:8] in _MP4_BOXES:
        if head[4:8] == b"ftyp" and head[8:12] in _STILL_BRANDS:
            raise Unusable("is a HEIF/AVIF picture, which is not supported; convert it to jpeg or png")
        demuxer = "mov"
    elif head.startswith(b"\x1a\x45\xdf\xa3"):
        demuxer = "matroska"
    elif head[:4] == b"RIFF" and head[8:11] == b"AVI":
        demuxer = "avi"
    elif head.startswith(b"FLV\x01"):
        demuxer = "flv"
    elif head.startswith(b"OggS"):
        demuxer = "ogg"
    elif head.startswith((b"GIF87a", b"GIF89a")):
        demuxer = "gif"
    elif head.startswith(_ASF):
        demuxer = "asf"
    elif head.startswith(b"\x00\x00\x01\xba"):
        demuxer = "mpeg"
    elif _UNIT.match(head):
        demuxer = "hevc" if _H265_SET.search(head) else "h264" if _H264_SET.search(head) else None
    elif _packets(head, 188, 0) or _packets(head, 192, 4):
        demuxer = "mpegts"
    return None if demuxer is None else Container("video", demuxer)


def _image(head: bytes) -> Container | None:
    name = None
    if head.startswith(b"\xff\xd8\xff"):
        name = "jpeg"
    elif head.startswith(b"\x89PNG\r\n\x1a\n"):
        name = "png"
    elif head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        name = "webp"
    return None if name is None else Container("image", name)


def _packets(head: bytes, size: int, offset: int) -> bool:
    """Whether these are MPEG transport packets of ``size`` bytes, each beginning with its sync byte."""
    begins = range(offset, min(len(head), size * 8), size)
    return len(begins) >= 2 and all(head[at] == 0x47 for at in begins)


def _refuse_playlist(head: bytes) -> None:
    text = head.removeprefix(b"\xef\xbb\xbf")
    if text.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = text[2:].replace(b"\0", b"")
    text = text.lstrip().lower()
    for magic, name in _PLAYLISTS:
        if text.startswith(magic):
            raise Unusable(f"is {name}, which points to other files, not a video; pass the video file itself")
    if text.startswith((b"<?xml", b"<")):
        for tag, name in _XML_PLAYLISTS:
            if tag in text:
                raise Unusable(f"is {name}, which points to other files, not a video; pass the video file itself")


def _looks_like_text(head: bytes) -> bool:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    printable = sum(byte >= 0x20 or byte in b"\t\n\r\f\x1b" for byte in head)
    return b"\0" not in head and printable / len(head) > 0.98
