"""Pictures that are not stored as they are seen: high dynamic range, fields, several streams, covers."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from keyeloop.runtime.evidence import Region
from keyeloop.tools.video.child.colour import HLG, PQ, to_screen
from keyeloop.tools.video.child.fields import woven
from keyeloop.tools.video.decoder import Decoder
from tests.tools.moving_pictures import bar_code, read_bar_code, write_video

SECOND = [number * 40 for number in range(25)]
BT2020 = 9


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as one:
        yield one


def code_of(nits: float, transfer: int) -> float:
    """Signal from 0 to 1 of grey light: the inverse curves of BT.2100, written down once more."""
    if transfer == PQ:
        power = (nits / 10_000) ** 0.1593017578125
        return float(((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)
    scene = (nits / 1000) ** (1 / 1.2)
    return float(np.sqrt(3 * scene) if scene <= 1 / 12 else 0.17883277 * np.log(12 * scene - 0.28466892) + 0.55991073)


def phone_video(path: Path, transfer: int, colours: NDArray[np.uint16]) -> Path:
    """Ten bits, BT.2020, stripes of ``colours`` (n x 3 of uint16)."""
    with av.open(str(path), "w") as file:
        curve = {PQ: "smpte2084", HLG: "arib-std-b67"}[transfer]
        tags = f"log-level=none:colorprim=bt2020:colormatrix=bt2020nc:transfer={curve}"
        stream: Any = file.add_stream("libx265", rate=25, options={"x265-params": tags, "crf": "4"})
        stream.width, stream.height, stream.pix_fmt = 40 * len(colours), 64, "yuv420p10le"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = (
            BT2020,
            transfer,
            BT2020,
            1,
        )
        stripes = np.repeat(np.repeat(colours[None, :, :], 64, axis=0), 40, axis=1)
        frame = av.VideoFrame.from_ndarray(stripes, format="rgb48le").reformat(
            format="yuv420p10le", dst_colorspace=BT2020
        )
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_high_dynamic_range_is_shown_as_on_a_screen(transfer: int, tmp_path: Path, decoder: Decoder) -> None:
    lights = [0.0, 5.0, 26.0, 100.0, 203.0, 1000.0]
    greys = np.array([[code_of(light, transfer) * 65535] * 3 for light in lights], np.uint16)
    path = phone_video(tmp_path / "phone.mp4", transfer, greys)
    width = 40 * len(lights)
    (one,) = decoder.cut(str(path), [0.0], Region(0, 0, width, 64), width, 64)
    shown = one.pixels[32, 20::40]
    assert np.ptp(shown, axis=1).max() <= 3, "greys stay grey"
    levels = [int(level) for level in shown.mean(axis=1)]
    assert levels == sorted(levels) and levels[0] <= 2 and levels[-1] >= 250
    # below the roll-off a screen whose white is 203 cd/m2 shows the very light: sRGB of 5/203 and 26/203
    assert levels[1] == pytest.approx(255 * (1.055 * (5 / 203) ** (1 / 2.4) - 0.055), abs=3)
    assert levels[2] == pytest.approx(255 * (1.055 * (26 / 203) ** (1 / 2.4) - 0.055), abs=3)
    assert 170 <= levels[3] <= 190 and 205 <= levels[4] <= 235, "paper stays bright, with room above it"


def test_wide_colours_become_those_of_a_screen() -> None:
    red_of_bt709_in_bt2020 = np.array([0.627404, 0.069097, 0.016391]) * 100  # BT.2087's inverse, at 100 cd/m2
    codes = np.array([[[code_of(light, PQ) * 65535 for light in red_of_bt709_in_bt2020]]], np.uint16)
    red, green, blue = (int(value) for value in to_screen(codes, PQ)[0, 0])
    assert red > 150 and green <= 4 and blue <= 4


def test_combs_are_filled_and_still_lines_stay() -> None:
    early, late = bar_code(341, 160, 96), bar_code(682, 160, 96)  # every stripe differs
    frame = early.copy()
    frame[1::2] = late[1::2]
    moved = woven(frame)
    assert read_bar_code(moved) == 341 and np.abs(moved.astype(int) - early).mean() < 1
    rng = np.random.default_rng(0)
    still = np.repeat(rng.integers(0, 255, (48, 160, 3), np.uint8), 2, axis=0)
    assert (woven(still) == still).mean() > 0.5
    smooth = np.repeat(np.linspace(0, 255, 96).astype(np.uint8)[:, None, None], 160, 1).repeat(3, 2)
    assert np.array_equal(woven(smooth), smooth)


def test_an_interlaced_video_shows_no_combs(tmp_path: Path, decoder: Decoder) -> None:
    path = tmp_path / "tv.ts"
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream("libx264", rate=25, options={"x264-params": "tff=1", "crf": "12"})
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for number in range(30):
            fields = bar_code(2 * number, 160, 96)
            fields[1::2] = bar_code(2 * number + 1023, 160, 96)[1::2]
            frame = av.VideoFrame.from_ndarray(fields)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    (one,) = decoder.cut(str(path), [0.5], Region(0, 0, 160, 96), 160, 96)
    lines = one.pixels.astype(int)
    assert read_bar_code(one.pixels) == 24
    assert np.abs(lines[1:] - lines[:-1]).mean() < 12, "neighbouring lines agree"


def test_the_main_stream_is_looked_at(tmp_path: Path, decoder: Decoder) -> None:
    """A cover picture, a small second camera, sound and subtitles beside the video."""
    main = write_video(tmp_path / "main.mp4", SECOND, size=(320, 192), audio=True)
    small = write_video(tmp_path / "small.mp4", [0, 500], size=(80, 48))
    with av.open(str(tmp_path / "all.mkv"), "w") as out:
        for path in (small, main):
            with av.open(str(path)) as file:
                tracks = {stream.index: out.add_stream_from_template(stream) for stream in file.streams}
                if path == main:
                    packets = [packet for packet in file.demux() if packet.size]
                    for packet in packets:
                        packet.stream = tracks[packet.stream.index]
                        out.mux(packet)
    facts = decoder.probe(str(tmp_path / "all.mkv"))
    assert (facts.width, facts.height) == (320, 192)
    (one,) = decoder.cut(str(tmp_path / "all.mkv"), [0.5], Region(0, 0, 320, 192), 160, 96)
    assert read_bar_code(one.pixels) == 12
