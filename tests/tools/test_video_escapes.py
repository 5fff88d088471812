"""Media that point elsewhere: none makes the decoder open another file or an address, each gives a clear error.

Every case names a listener on this machine, and another video whose frames must never be seen.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from keyeloop.runtime.errors import InputError
from keyeloop.runtime.evidence import Region
from keyeloop.tools.confined.errors import Unusable
from keyeloop.tools.video.decoder import Decoder
from keyeloop.tools.video.probe import open_source
from keyeloop.tools.video.words import read_words
from tests.tools.moving_pictures import read_bar_code, write_video

ALL = Region(0, 0, 160, 96)


class Surroundings:
    """What must not be reached: ``secret``, a video of three frames, and ``url``, where somebody listens."""

    def __init__(self, folder: Path) -> None:
        self.secret = write_video(folder / "secret.ts", [40 * number for number in range(3)])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/film.ts"
        self.own = write_video(folder / "own.mp4", [40 * number for number in range(5)])

    def require_quiet(self) -> None:
        """Fails when anybody has called."""
        with pytest.raises(BlockingIOError):
            self._listener.accept()

    def close(self) -> None:
        self._listener.close()


@pytest.fixture(scope="module")
def around(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surroundings]:
    made = Surroundings(tmp_path_factory.mktemp("around"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as one:
        yield one


PREFIXES = (
    "http://", "https://", "ftp://", "rtmp://", "rtsp://", "udp://", "tcp://", "tls://", "sftp://", "gopher://",
    "file:", "file://", "concat:", "concatf:", "subfile,,start,0,end,9,,:", "cache:", "crypto:", "async:", "hls+http://",
    "data:video/mp4;base64,AAAA", "pipe:0", "fd:0", "unix:", "lavfi:", "md5:", "ipfs://",
)  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
def test_an_address_is_no_file(prefix: str, around: Surroundings, decoder: Decoder) -> None:
    for rest in (f"127.0.0.1:{around.port}/film.ts", str(around.secret)):
        with pytest.raises(InputError, match=r"is an address, not a file; download it|does not exist: no such file"):
            open_source(prefix + rest, "video-1", decoder=decoder)
    around.require_quiet()


HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n"
PLAYLISTS: dict[str, str] = {
    "media list": HLS + "#EXTINF:1,\n{to}\n#EXT-X-ENDLIST\n",
    "master list": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{to}\n",
    "key": HLS + '#EXT-X-KEY:METHOD=AES-128,URI="{to}"\n#EXTINF:1,\nx.ts\n',
    "map": HLS + '#EXT-X-MAP:URI="{to}"\n#EXTINF:1,\nx.mp4\n',
    "rendition": '#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="a",URI="{to}"\n',
    "windows lines": HLS.replace("\n", "\r\n") + "#EXTINF:1,\r\n{to}\r\n",
    "blank lines first": "\n\n  " + HLS + "#EXTINF:1,\n{to}\n",
    "byte order mark": "\ufeff" + HLS + "#EXTINF:1,\n{to}\n",
    "lower case": HLS.lower() + "#extinf:1,\n{to}\n",
    "long comment first": "#" * 5000 + "\n" + HLS + "#EXTINF:1,\n{to}\n",
    "bare list": "{to}\n{to}\n",
    "dash": '<?xml version="1.0"?><MPD type="static"><Period><BaseURL>{to}</BaseURL></Period></MPD>',
    "dash without head": "<MPD><Period><AdaptationSet><SegmentTemplate media='{to}'/></AdaptationSet></Period></MPD>",
    "dash with entity": '<!DOCTYPE MPD [<!ENTITY x SYSTEM "{to}">]><MPD><Period>&x;</Period></MPD>',
    "concat": "ffconcat version 1.0\nfile '{to}'\n",
    "concat without head": "file {to}\nduration 5\n",
    "concat after a comment": "# a list\nfile {to}\n",
    "session": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns={to}\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "pls": "[playlist]\nFile1={to}\nNumberOfEntries=1\n",
    "asx": '<ASX version="3.0"><Entry><Ref href="{to}"/></Entry></ASX>',
    "asf reference": "[Reference]\nRef1={to}\n",
    "xspf": '<?xml version="1.0"?><playlist version="1"><track><location>{to}</location></track></playlist>',
    "smil": '<smil><body><video src="{to}"/></body></smil>',
    "quicktime redirect": "RTSPtext\n{to}\n",
    "quicktime link": '<?xml version="1.0"?><?quicktime type="application/x-quicktime-media-link"?><embed src="{to}"/>',
    "smooth streaming": '<SmoothStreamingMedia MajorVersion="2"><StreamIndex Url="{to}"/></SmoothStreamingMedia>',
    "vobsub index": "# VobSub index file, v7 (do not modify this line!)\n# {to}\n",
    "svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="{to}"/></svg>',
    "mvg": "push graphic-context\nimage over 0,0 0,0 '{to}'\npop graphic-context\n",
    "avisynth": 'DirectShowSource("{to}")\n',
    "edit list": "TITLE: x\n001 AX V C 00:00:00:00 00:00:01:00\n* FROM CLIP NAME: {to}\n",
    "html": "<html><video src='{to}'></video></html>",
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_playlist_named_mp4_opens_nothing(name: str, around: Surroundings, decoder: Decoder, tmp_path: Path) -> None:
    for place, target in enumerate(
        (around.url, str(around.secret), f"file://{around.secret}", f"concat:{around.secret}")
    ):
        path = tmp_path / f"{place}.mp4"
        path.write_text(PLAYLISTS[name].replace("{to}", target), encoding="utf-8")
        with pytest.raises(InputError, match=r"which points to other files|is a text file, not a video"):
            open_source(path, "video-1", decoder=decoder)
        path.write_text("\ufeff" + PLAYLISTS[name].replace("{to}", target), encoding="utf-16-le")
        decoder._identities.clear()
        with pytest.raises(InputError, match=r"which points to other files|is a text file, not a video"):
            open_source(path, "video-1", decoder=decoder)
    around.require_quiet()


def grown(data: bytes, path: tuple[bytes, ...], change: Callable[[bytes], bytes]) -> bytes:
    """An mp4 with the body of the box at ``path`` changed, and the lengths of all boxes around it."""
    at = 0
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == path[0]:
            head = 8 + (8 if kind == b"dref" and len(path) > 1 else 0)
            body = data[at + head : at + length]
            body = change(body) if len(path) == 1 else grown(body, path[1:], change)
            inner = struct.pack(">I4s", head + len(body), kind) + data[at + 8 : at + head] + body
            return data[:at] + inner + data[at + length :]
        at += length
    raise AssertionError(f"no box {path[0]!r}")


DREF = (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref")


def elsewhere(around: Surroundings, target: str) -> dict[str, bytes]:
    """The own video with references to ``target`` in it; its media data come before its index and stay in place."""
    own, to = around.own.read_bytes(), target.encode()
    assert own.index(b"mdat") < own.index(b"moov")

    def entry(kind: bytes, body: bytes) -> Callable[[bytes], bytes]:
        return lambda _: struct.pack(">II", 0, 1) + struct.pack(">I4sI", 12 + len(body), kind, 0) + body

    alias = struct.pack(">4sHH", b"\0" * 4, 150 + len(to) + 8, 2) + b"\0" * 142 + struct.pack(">HH", 18, len(to)) + to
    moved = _box(b"rmda", _box(b"rdrf", struct.pack(">I4sI", 0, b"url ", len(to)) + to))
    playlist = HLS.encode() + b"#EXTINF:1,\n" + to + b"\n"
    asf = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + b"\0" * 14
    return {
        "mp4 data of a url": grown(own, DREF, entry(b"url ", to + b"\0")),
        "mp4 data of a urn": grown(own, DREF, entry(b"urn ", b"x\0" + to + b"\0")),
        "mov data of an alias": grown(own, DREF, entry(b"alis", alias)),
        "mov reference movie": own + _box(b"moov", _box(b"rmra", moved)),
        "mp4 that continues as a playlist": own + playlist,
        "mp4 with an address in a box": own + _box(b"uuid", to),
        "packets that hold a playlist": b"".join(b"\x47" + playlist.ljust(187, b" ") for _ in range(40)),
        "flv with a playlist": b"FLV\x01\x05\0\0\0\x09\0\0\0\0" + playlist,
        "avi with a playlist": b"RIFF\xff\xff\0\0AVI LIST" + playlist,
        "mkv with a playlist": b"\x1a\x45\xdf\xa3\x80" + playlist,
        "ogg with a playlist": b"OggS" + playlist,
        "asf with a reference": asf + b"[Reference]\nRef1=" + to,
        "gif with a playlist": b"GIF89a" + playlist,
    }


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


CONTAINERS = (
    "mp4 data of a url", "mp4 data of a urn", "mov data of an alias", "mov reference movie",
    "mp4 that continues as a playlist", "mp4 with an address in a box", "packets that hold a playlist",
    "flv with a playlist", "avi with a playlist", "mkv with a playlist", "ogg with a playlist",
    "asf with a reference", "gif with a playlist",
)  # fmt: skip


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_that_points_elsewhere_shows_itself_or_nothing(
    name: str, around: Surroundings, decoder: Decoder, tmp_path: Path
) -> None:
    for place, target in enumerate((around.url, str(around.secret), f"file://{around.secret}", "../secret.ts")):
        path = tmp_path / f"{place}.mp4"
        made = elsewhere(around, target)
        assert set(made) == set(CONTAINERS)
        path.write_bytes(made[name])
        try:
            shown = decoder.cut(str(path), [0.04, 0.16], ALL, 160, 96)
        except Unusable as error:
            assert ";" in str(error) or ":" in str(error), "a cause and a cure"
        else:
            assert [read_bar_code(one.pixels) for one in shown] == [1, 4], "its own frames"
    around.require_quiet()


@pytest.mark.parametrize(
    "words",
    [
        "1\n00:00:00,000 --> 00:00:01,000\n<img src='{to}'>\n",
        "WEBVTT\n\nSTYLE\n::cue {{ background: url({to}) }}\n\n00:00.000 --> 00:01.000\nx\n",
        "[Script Info]\nVideo File: {to}\nAudio URI: {to}\n[Events]\nFormat: Start, End, Text\n",
        HLS + "#EXTINF:1,\n{to}\n",
        "ffconcat version 1.0\nfile {to}\n",
    ],
)
def test_a_subtitle_file_opens_nothing(words: str, around: Surroundings, decoder: Decoder, tmp_path: Path) -> None:
    video = tmp_path / "film.mp4"
    video.write_bytes(around.own.read_bytes())
    for target in (around.url, str(around.secret)):
        (tmp_path / "film.srt").write_text(words.replace("{to}", target))
        decoder._identities.clear()
        (track,) = read_words(str(video), decoder)
        assert track.problem or all("secret" not in cue.text or "img" in cue.text for cue in track.cues)
    around.require_quiet()


@pytest.mark.parametrize("side", [20_000, 65_500])
def test_a_picture_of_a_thousand_million_pixels_ends_at_the_cap(side: int, decoder: Decoder, tmp_path: Path) -> None:
    path = tmp_path / "bomb.gif"
    lines = b"\x2c" + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x02\x02\x4c\x01\x00\x3b"
    path.write_bytes(b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + b"\0" * 6 + lines)
    with pytest.raises(Unusable) as caught:
        decoder.cut(str(path), [0.0], Region(0, 0, side, side), 64, 64)
    assert ";" in str(caught.value)


def test_what_lies_behind_a_link_or_a_device_is_not_decoded(
    around: Surroundings, decoder: Decoder, tmp_path: Path
) -> None:
    for path in ("/dev/zero", "/dev/stdin", "/proc/self/environ", str(tmp_path)):
        with pytest.raises(InputError):
            open_source(path, "video-1", decoder=decoder)
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="is not a regular file"):
        open_source(pipe, "video-1", decoder=decoder)
    around.require_quiet()
