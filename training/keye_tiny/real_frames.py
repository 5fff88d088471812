"""Pictures of scenes that really went through painting, H.264, decoding, cutting and JPEG, made on CPU cores."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import cv2
import numpy as np
import numpy.typing as npt

from keyeloop.runtime.evidence import Region
from keyeloop.tools.demo_video.glyphs import GlyphAtlas
from keyeloop.tools.demo_video.paint import paint
from keyeloop.tools.demo_video.scene import Scene
from keyeloop.tools.video.child.picture import cut

Pixels = npt.NDArray[np.uint8]
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "medium")
CRF = (20, 32)
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
"""As the media store writes pictures."""


@dataclass(frozen=True)
class View:
    """What to show of a scene, and at which size in pixels."""

    scene: Scene
    region: Region
    width: int
    height: int


def real_batch(
    seed: int, count: int, atlas: GlyphAtlas, draw: Callable[[random.Random], View], *, scenes_a_file: int = 6
) -> list[tuple[View, Pixels]]:
    """``count`` views drawn by ``draw``, with their pixels uint8 RGB ``[height, width, 3]`` after the real path.

    Every few scenes share a short file of random quality and preset. Deterministic in ``seed``; safe in any process.
    """
    rng = random.Random(seed)
    found: list[tuple[View, Pixels]] = []
    while len(found) < count:
        views = [draw(rng) for _ in range(min(scenes_a_file, count - len(found)))]
        decoded = film([view.scene for view in views], atlas, rng.randint(*CRF), rng.choice(PRESETS), rng.randint(1, 4))
        found += [(view, see(pixels, view)) for view, pixels in zip(views, decoded, strict=True)]
    return found


def film(scenes: Sequence[Scene], atlas: GlyphAtlas, crf: int, preset: str, frames_a_scene: int = 3) -> list[Pixels]:
    """Paint scenes of one size, encode them one after the other and decode the last frame of each."""
    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = scenes[0].width, scenes[0].height, "yuv420p"
        stream.options = {"crf": str(crf), "preset": preset, "threads": "1"}
        for scene in scenes:
            painted = paint(scene, atlas)
            for _ in range(frames_a_scene):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(painted, format="rgb24")))
        container.mux(stream.encode())
    memory.seek(0)
    with av.open(memory, "r") as reading:
        reading.streams.video[0].codec_context.thread_count = 1
        return [
            np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
            for index, frame in enumerate(reading.decode(video=0))
            if index % frames_a_scene == frames_a_scene - 1
        ]


def see(pixels: Pixels, view: View) -> Pixels:
    """Cut and resize a decoded frame as the video tools do, and take it through the media store's JPEG."""
    region = view.region
    shown = (view.scene.width, view.scene.height)
    part = cut(pixels, shown, (region.x0, region.y0, region.x1, region.y1), (view.width, view.height))
    return stored(part)


def stored(pixels: Pixels) -> Pixels:
    """A picture as it comes back from the media store."""
    _, data = cv2.imencode(".jpg", pixels[..., ::-1], JPEG)
    return np.ascontiguousarray(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)[..., ::-1])
