"""Decoding goes on while a picture is drawn, and what no picture is built on does not reach the decoder."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from keyeloop.tools.video.child.ahead import ahead
from keyeloop.tools.video.child.unbuilt import is_unbuilt, length_bytes
from tests.tools.moving_pictures import write_video

LAYERED = {"bf": "3", "g": "40", "x264-params": "b-pyramid=normal:b-adapt=0:scenecut=0"}


def test_items_come_in_order_and_the_next_are_made_meanwhile() -> None:
    made: list[int] = []

    def make() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    items = ahead(make(), 3)
    assert next(items) == 0
    deadline = time.monotonic() + 10
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.05)
    assert made == [0, 1, 2, 3]
    assert list(items) == list(range(1, 20))


def test_what_making_an_item_raises_comes_in_its_place() -> None:
    def make() -> Iterator[str]:
        yield "first"
        raise ValueError("second")

    items = ahead(make(), 3)
    assert next(items) == "first"
    with pytest.raises(ValueError, match="second"):
        next(items)


def test_closing_ends_the_thread() -> None:
    makers: set[threading.Thread] = set()

    def make() -> Iterator[int]:
        while True:
            makers.add(threading.current_thread())
            yield 1

    items = ahead(make(), 2)
    next(items)
    items.close()  # type: ignore[attr-defined]  # it is a generator
    (maker,) = makers
    assert maker is not threading.current_thread()
    assert not maker.is_alive()


@pytest.mark.parametrize("fields", ["0", "1"])
def test_unbuilt_packets_are_those_that_the_decoder_leaves_out(tmp_path: Path, fields: str) -> None:
    path = tmp_path / "layers.mp4"
    options = LAYERED | {"x264-params": f"{LAYERED['x264-params']}:interlaced={fields}"}
    write_video(path, range(0, 80 * 40, 40), options=options)
    with av.open(str(path)) as file:
        context = file.streams.video[0].codec_context
        length = length_bytes(context.name, context.extradata)
        dropped = {one.pts for one in file.demux(video=0) if one.size and is_unbuilt(memoryview(one), length)}
    with av.open(str(path)) as file:
        file.streams.video[0].codec_context.skip_frame = "NONREF"
        kept = {frame.pts for frame in file.decode(video=0)}
    with av.open(str(path)) as file:
        every = {frame.pts for frame in file.decode(video=0)}
    assert length == 4
    assert 20 < len(dropped) < 60
    assert every - kept == dropped


def test_packets_that_do_not_tell_are_all_decoded(tmp_path: Path) -> None:
    path = tmp_path / "layers.ts"
    write_video(path, range(0, 40 * 40, 40), options=LAYERED)
    with av.open(str(path)) as file:
        context = file.streams.video[0].codec_context
        assert length_bytes(context.name, context.extradata) == 0
        assert not any(is_unbuilt(memoryview(one), 0) for one in file.demux(video=0))


def test_a_packet_at_odds_with_its_lengths_is_decoded() -> None:
    slice_of_none, slice_of_some = b"\0\0\0\2\x01\xff", b"\0\0\0\2\x41\xff"
    assert is_unbuilt(memoryview(slice_of_none * 2), 4)
    assert not is_unbuilt(memoryview(slice_of_none + slice_of_some), 4)
    for damaged in (b"", slice_of_none[:-1], slice_of_none + b"\0", b"\xff" * 9):
        assert not is_unbuilt(memoryview(damaged), 4)
