"""What a declared input is, and how every unusable one is refused: one line, with cause and cure."""

from __future__ import annotations

import hashlib
import os
import struct
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from keyeloop.runtime.errors import InputError
from keyeloop.runtime.evidence import Region
from keyeloop.tools.video.child.picture import Orientation
from keyeloop.tools.video.decoder import Decoder
from keyeloop.tools.video.probe import examine, open_source
from tests.tools.moving_pictures import read_bar_code, write_video

SECOND = [number * 40 for number in range(25)]


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as one:
        yield one


def test_a_video_is_described_as_it_is_shown(tmp_path: Path, decoder: Decoder) -> None:
    path = write_video(tmp_path / "late.mp4", [3000 + time for time in SECOND], options={"bf": "2"})
    source = open_source(path, "video-1", decoder=decoder)
    assert (source.name, source.kind, source.path) == ("video-1", "video", str(path))
    assert (source.width, source.height, source.duration_s) == (160, 96, 1.0)
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_is_examined_while_it_is_hashed(tmp_path: Path, decoder: Decoder) -> None:
    path = write_video(tmp_path / "a.mp4", SECOND)
    examined = examine(path, "video-1", decoder)
    assert (examined.facts.kind, examined.facts.width) == ("video", 160)
    assert examined.source() == open_source(path, "video-1", decoder=decoder)


@pytest.mark.parametrize(("rotation", "size"), [(90, (96, 160)), (-90, (96, 160)), (180, (160, 96))])
def test_a_rotated_video_is_turned_upright(
    rotation: int, size: tuple[int, int], tmp_path: Path, decoder: Decoder
) -> None:
    path = write_video(tmp_path / "phone.mp4", SECOND, rotation=rotation)
    source = open_source(path, "video-1", decoder=decoder)
    assert (source.width, source.height) == size
    (cut,) = decoder.cut(str(path), [0.6], Region(0, 0, *size), *size)
    # ffmpeg's angle is counterclockwise: undo it and the bar code reads as it was drawn
    assert read_bar_code(np.rot90(cut.pixels, k=-rotation // 90)) == 15


def test_orientation_follows_the_display_matrix() -> None:
    picture = np.arange(6, dtype=np.uint8).reshape(2, 3)[:, :, None].repeat(3, axis=2)
    one = 1 << 16
    quarter_clockwise = struct.pack("=9i", 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    mirrored = struct.pack("=9i", -one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    assert Orientation.from_matrix(quarter_clockwise).apply(picture)[:, :, 0].tolist() == [[3, 0], [4, 1], [5, 2]]
    assert Orientation.from_matrix(mirrored).apply(picture)[:, :, 0].tolist() == [[2, 1, 0], [5, 4, 3]]


def test_pixels_that_are_not_square_are_shown_square(tmp_path: Path, decoder: Decoder) -> None:
    with av.open(str(tmp_path / "dvd.mkv"), "w") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 100, 80, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
        file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((80, 100, 3), np.uint8))))
        file.mux(stream.encode())
    source = open_source(tmp_path / "dvd.mkv", "video-1", decoder=decoder)
    assert (source.width, source.height) == (150, 80)


def test_an_image_is_described_upright_over_white(tmp_path: Path, decoder: Decoder) -> None:
    pixels = np.zeros((20, 30, 4), np.uint8)
    pixels[:, 15:, 3] = 255
    (tmp_path / "logo.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    source = open_source(tmp_path / "logo.png", "image-1", decoder=decoder)
    assert (source.kind, source.width, source.height, source.duration_s) == ("image", 30, 20, None)
    (cut,) = decoder.cut(source.path, None, Region(0, 0, 30, 20), 30, 20)
    assert cut.time_s is None
    assert cut.pixels[:, :15].min() == 255 and cut.pixels[:, 15:].max() == 0


def test_the_ending_of_a_name_means_nothing(tmp_path: Path, decoder: Decoder) -> None:
    path = write_video(tmp_path / "board.mp4", SECOND).rename(tmp_path / "board.txt")
    assert open_source(path, "video-1", decoder=decoder).kind == "video"


def _cut_after_moov_begins(path: Path) -> None:
    data = write_video(path, SECOND).read_bytes()
    path.write_bytes(data[: data.index(b"moov") + 40])


def _cut_before_moov(path: Path) -> None:
    data = write_video(path, SECOND).read_bytes()
    path.write_bytes(data[: data.index(b"moov") // 2])


def _audio_only(path: Path) -> None:
    with av.open(str(path), "w", format=path.suffix[1:]) as file:
        stream = file.add_stream("aac" if path.suffix == ".mp4" else "mp2", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4608), np.int16), "s16", "mono")
        frame.sample_rate = 44100
        file.mux([*stream.encode(frame), *stream.encode()])


def _zero_frames(path: Path) -> None:
    with av.open(str(path), "w", container_options={"movflags": "empty_moov+frag_keyframe"}) as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        file.start_encoding()


def _header_only(path: Path) -> None:
    whole = write_video(path, SECOND).read_bytes()
    path.write_bytes(whole[:600])


def _half_a_picture(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = cv2.imencode(path.suffix, noise)[1].tobytes()
    path.write_bytes(data[: len(data) // 2])


def _text(text: str | bytes) -> Callable[[Path], object]:
    data = text.encode() if isinstance(text, str) else text
    return lambda path: path.write_bytes(data)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing_there.mp4": (lambda path: None, "does not exist: no such file; check the path"),
    "folder.mp4": (lambda path: path.mkdir(), "is a folder, not a video or an image; name a file in it"),
    "pipe.mp4": (os.mkfifo, "is not a regular file; save"),
    "nul\0byte.mp4": (lambda path: None, "cannot be opened (embedded null byte); check"),
    "text.mp4": (_text("a film about nothing\n" * 9), "is a text file, not a video or an image; pass the media file"),
    "wide_text.mp4": (_text("\ufeffa film".encode("utf-16-le")), "is a text file"),
    "empty.mp4": (_text(""), "is empty (0 bytes); copy or download it again"),
    "hls.mp4": (_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n/etc/passwd\n"), "is an HLS playlist, which points to other"),
    "bom_hls.mp4": (_text("\ufeff\r\n#EXTM3U\n/etc/passwd\n"), "is an HLS playlist"),
    "ffconcat.mp4": (_text("ffconcat version 1.0\nfile /etc/passwd\n"), "is an ffconcat playlist"),
    "concat.mp4": (_text("file '/etc/passwd'\n"), "is a concat playlist"),
    "session.mp4": (_text("v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n"), "is an SDP session"),
    "dash.mp4": (_text('<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"/>'), "is a DASH manifest"),
    "xspf.mp4": (_text('<?xml version="1.0"?>\n<playlist version="1"/>'), "is an XSPF playlist"),
    "pls.mp4": (_text("[playlist]\nFile1=/etc/passwd\n"), "is a PLS playlist"),
    "redirect.mp4": (_text("RTSPtext\nrtsp://127.0.0.1/x"), "is a QuickTime redirect"),
    "noise.mp4": (_text(bytes(range(5, 256)) * 20), "is no video (mp4, mov, mkv"),
    "cut_before_index.mp4": (_cut_before_moov, "ends before its index (no complete moov box): recording or download"),
    "cut_in_index.mp4": (_cut_after_moov_begins, "ends before its index"),
    "audio_only.mp4": (_audio_only, "holds only audio, nothing to look at; pass a video or an image"),
    "audio_only.mp2": (_audio_only, "holds only audio"),
    "audio_only.wav": (_text(b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0"), "holds only audio"),
    "zero_frames.mp4": (_zero_frames, "holds no frame that can be decoded (zero frames, or damaged); record it again"),
    "header_only.mkv": (_header_only, "holds no frame that can be decoded"),
    "half.jpg": (_half_a_picture, "cut short or damaged"),
    "half.png": (_half_a_picture, "cut short or damaged"),
    "phone.heic": (_text(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"), "is a HEIF/AVIF picture, which is not supported;"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_with_cause_and_cure(name: str, tmp_path: Path, decoder: Decoder) -> None:
    make, expected = BAD[name]
    path = tmp_path / name
    make(path)
    before = threading.active_count()
    with pytest.raises(InputError) as caught:
        open_source(path, "video-1", decoder=decoder)
    message = str(caught.value)
    assert message.startswith(f"{path} {expected}" if "short" not in expected else str(path)) and expected in message
    assert "\n" not in message and ("; " in message or ": " in message)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    assert threading.active_count() <= before + 1


def test_one_child_survives_all_bad_input(tmp_path: Path, decoder: Decoder) -> None:
    good = write_video(tmp_path / "good.mp4", SECOND)
    open_source(good, "video-1", decoder=decoder)
    pid = decoder.pid
    for name in ("noise.mp4", "zero_frames.mp4", "header_only.mkv", "half.jpg"):
        BAD[name][0](tmp_path / name)
        with pytest.raises(InputError):
            open_source(tmp_path / name, "video-1", decoder=decoder)
    open_source(good, "video-1", decoder=decoder)
    assert decoder.pid == pid is not None
