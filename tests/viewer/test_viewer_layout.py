"""Where things stand: looks on a strip, folds of long texts, citations in an answer, words for times."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from keyeloop.agent.viewer.environment import count_words, duration_words, times_words
from keyeloop.agent.viewer.looks import FILM_CELLS, MOST_LANES_PX, Look, short_time, strips_of
from keyeloop.agent.viewer.opened import OpenedRuns
from keyeloop.agent.viewer.pictures import small_picture
from keyeloop.agent.viewer.timeline import MOST_CHARS, answer_pieces, shown, step_views
from keyeloop.runtime.content import MediaRef
from keyeloop.runtime.errors import InputError
from keyeloop.runtime.evidence import Citation, Region, View
from keyeloop.runtime.picture import decode_picture, encode_picture
from keyeloop.runtime.trajectory import Trajectory

PICTURE = MediaRef("0" * 64, "image/jpeg", 1, 28, 28)


def test_a_strip_places_each_look_by_time_call_and_closeness(store: Path) -> None:
    opened = OpenedRuns().open("looking", store / "looking")
    (strip,) = opened.strips
    length_s = strip.source.duration_s
    assert length_s is not None
    assert [mark.look.view.handle for mark in strip.marks] == ["f1", "f2", "f3", "z1"]
    places = [100 * at / length_s for at in (2, 5, 8, 5)]
    assert [mark.x_percent for mark in strip.marks] == pytest.approx(places, abs=0.01)
    frames, crop = strip.marks[:3], strip.marks[3]
    assert len({mark.y_px for mark in frames}) == 1 and crop.y_px > frames[0].y_px, "a later call stands lower"
    assert [mark.look.closeness for mark in frames] == [1, 1, 1]
    assert crop.look.closeness == pytest.approx(2, abs=0.2) and crop.radius_px > frames[0].radius_px
    (bar,) = strip.bars
    assert bar.width_percent == pytest.approx(100 * 6 / length_s, abs=0.01)
    assert [flag.x_percent for flag in strip.flags] == [crop.x_percent, frames[2].x_percent]
    seen = [place for place, look in enumerate(strip.film) if look]
    assert seen == sorted({int(at / length_s * FILM_CELLS) for at in (2, 5, 8)})


def test_thousands_of_calls_share_the_height(store: Path) -> None:
    run = Trajectory.read(store / "looking")
    source = run.start.inputs[0]
    looks = tuple(
        Look(View(f"f{n}", source.name, source.sha256, n / 50, source.whole), PICTURE, n, n, 1.0) for n in range(2000)
    )
    (strip,) = strips_of(run, looks)
    assert strip.height_px < MOST_LANES_PX + 40
    assert strip.marks[0].y_px < strip.marks[1000].y_px < strip.marks[-1].y_px < strip.height_px


def test_times_numbers_and_factors_in_words() -> None:
    assert [short_time(at) for at in (0, 5, 59.96, 75.5, 600, 3600, 3723.25)] == [
        "0:00", "0:05", "0:59.96", "1:15.5", "10:00", "1:00:00", "1:02:03.25",
    ]  # fmt: skip
    assert [duration_words(at) for at in (0.0004, 0.05, 0.0996, 0.994, 1.26, 59.96, 61, 3723)] == [
        "0 ms", "50 ms", "0.10 s", "0.99 s", "1.3 s", "1:00 min", "1:01 min", "1:02:03 h",
    ]  # fmt: skip
    assert (count_words(1234567), times_words(3.21), times_words(12.4)) == ("1,234,567", "×3.2", "×12")


def test_long_texts_are_folded_and_very_long_ones_cut() -> None:
    assert shown("one\ntwo").whole == "" and shown("one\ntwo").head == "one\ntwo"
    many = shown("\n".join(map(str, range(100))))
    assert many.head.endswith("\n13") and many.whole.endswith("\n99") and many.left_chars == 0
    huge = shown("é" * (MOST_CHARS + 7))
    assert len(huge.whole) == MOST_CHARS and huge.left_chars == 7
    assert shown("a\x1b[2Jb\u202ec").head == "a\\x1b[2Jb\\x202ec", "nothing steers a terminal or turns a line around"


def test_an_answer_is_cut_at_its_citations() -> None:
    def cited(text: str) -> Citation:
        return Citation("video-1", "", 1.0, Region(0, 0, 1, 1), text[1:3], True, text)

    answer = "It is 3 [f1; f2], not [4]. Then [f3]"
    pieces = answer_pieces(answer, (cited("[f1]"), cited("[f2]"), cited("[f3]")))
    assert [text or (citation.text if citation else None) for text, citation in pieces] == [
        "It is 3 ", "[f1]", "[f2]", ", not [4]. Then ", "[f3]", None,
    ]  # fmt: skip


def test_a_step_has_its_share_of_tokens_and_time(store: Path) -> None:
    opened = OpenedRuns().open("looking", store / "looking")
    first, second, last = step_views(opened)
    longest = last.step.reply.usage.input_tokens if last.step.reply else 0
    for view in (first, second, last):
        assert view.step.reply is not None
        shares = view.cached_percent + view.visual_percent + view.fresh_percent
        assert shares == pytest.approx(100 * view.step.reply.usage.input_tokens / longest, abs=0.1)
        assert all(0 <= lap.x_percent <= 100 for lap in view.laps)
    assert second.visual_percent > 0
    assert [call.name for call in first.calls] == ["clip_video", "note"]
    (argument,) = first.calls[1].arguments
    assert argument.block is not None and argument.block.head == "what is\nwritten", "lines stay lines"
    assert [image.view.handle for image in first.calls[0].pictures if image.view] == ["f1", "f2", "f3"]


@pytest.mark.parametrize("size", [(2600, 900), (1280, 720), (700, 500), (300, 40)])
@pytest.mark.parametrize("kind", [".jpg", ".png"])
def test_small_pictures_show_the_same(size: tuple[int, int], kind: str) -> None:
    width, height = size
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    pixels = np.stack([across, down, np.full_like(across, 40)], axis=2).astype(np.uint8)
    data = encode_picture(pixels) if kind == ".jpg" else cv2.imencode(kind, pixels[:, :, ::-1])[1].tobytes()
    small = decode_picture(small_picture(data, 320))
    assert small.shape[1] == min(320, width) and abs(small.shape[0] - small.shape[1] * height / width) <= 1
    wanted = cv2.resize(pixels, small.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - wanted).mean() < 3


def test_a_damaged_picture_is_not_made_small() -> None:
    whole = encode_picture(np.zeros((720, 1280, 3), np.uint8))
    for bad in (whole[:300], b"no picture", whole[:2] + b"\xff\xc0\x00\x11\x08\xff\xff\xff\xff" + whole[2:]):
        with pytest.raises(InputError):
            small_picture(bad, 320)
