"""What ``video.py`` measures our decoder beside: PyAV's users, OpenCV, decord, torchcodec and the ffmpeg command.

Every one gives the frames on screen at ascending times as a model takes them, RGB of ``SIZE``, and cuts a clip where it
can. Each is used as its documentation advises for that: OpenCV reads on where the next frame is near, decord scales
while it decodes, one ffmpeg process gives all frames that lie close.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

Pixels = Any
SOURCE, SIZE = (1280, 720), (448, 252)
NEAR_FRAMES = 250


class Library(Protocol):
    """One way to get at frames."""

    version: str

    def read(self, times_s: Sequence[float], number: Callable[[Pixels], int]) -> list[int]:
        """What ``number`` reads from the frame on screen at each of ascending times."""

    def clip(self, start_s: float, end_s: float, out: Path) -> bool:
        """Write a span as a playable file; False where the library does not."""


class Keyeloop:
    """The guarded child as ``clip_video`` has it, or, for frames all over a long video, as a run that watches it."""

    key_frames = False

    def __init__(self, path: Path) -> None:
        from keyeloop.runtime.evidence import Region, Source
        from keyeloop.tools.video.decoder import Decoder

        self.version = "here"
        self.decoder, self._path, self._whole = Decoder(), str(path), Region(0, 0, *SOURCE)
        facts = self.decoder.probe(self._path)
        self._source = Source("video-1", "video", "", self._path, *SOURCE, facts.duration_s)
        self.shown_s: list[float] = []

    def read(self, times_s: Sequence[float], number: Callable[[Pixels], int]) -> list[int]:
        """What ``number`` reads from each frame; those with ``key_frames`` only once each."""
        from keyeloop.tools.video.readers import readers_for

        found: dict[float, int] = {}
        shown_s = [0.0] * len(times_s)

        def take(place: int, time_s: float, pixels: Pixels | None) -> None:
            shown_s[place] = time_s
            if pixels is not None:
                found[time_s] = number(pixels)

        readers = readers_for(self._source, len(times_s))
        far = len(times_s) > 1 and times_s[-1] - times_s[0] > 60
        self.decoder.watch(
            self._path, times_s, self._whole, SIZE, take, key_frames=self.key_frames, readers=readers if far else 1
        )
        self.shown_s = sorted(found) if self.key_frames else shown_s
        return [found[time_s] for time_s in self.shown_s]

    def clip(self, start_s: float, end_s: float, out: Path) -> bool:
        from keyeloop.tools.video.excerpt import cut_clip

        cut_clip(self._path, start_s, end_s, out, decoder=self.decoder)
        return True


class InOrder:
    """Libraries that give one frame after the other."""

    def read(self, times_s: Sequence[float], number: Callable[[Pixels], int]) -> list[int]:
        return [number(one) for one in self.frames(times_s)]

    def frames(self, times_s: Sequence[float]) -> Iterator[Pixels]:
        raise NotImplementedError


class KeyeloopKeys(Keyeloop):
    """The same with ``key_frames``: not the frames asked for, but true times."""

    key_frames = True


class OpenCV(InOrder):
    def __init__(self, path: Path) -> None:
        import cv2

        self.version, self._cv2, self._video = cv2.__version__, cv2, cv2.VideoCapture(str(path))

    def frames(self, times_s: Sequence[float]) -> Iterator[Pixels]:
        rate, at = self._video.get(self._cv2.CAP_PROP_FPS), -1
        for time_s in times_s:
            wanted = int(time_s * rate + 1e-4)
            if not 0 <= wanted - at <= NEAR_FRAMES or at < 0:
                self._video.set(self._cv2.CAP_PROP_POS_FRAMES, wanted)
                at = wanted
            while at < wanted:
                self._video.grab()
                at += 1
            frame, at = self._video.read()[1], at + 1
            small = self._cv2.resize(frame, SIZE, interpolation=self._cv2.INTER_AREA)
            yield self._cv2.cvtColor(small, self._cv2.COLOR_BGR2RGB)

    def clip(self, start_s: float, end_s: float, out: Path) -> bool:
        return False


class Decord(InOrder):
    def __init__(self, path: Path) -> None:
        import decord

        self.version, self._video = decord.__version__, decord.VideoReader(str(path), width=SIZE[0], height=SIZE[1])
        self._starts = self._video.get_frame_timestamp(range(len(self._video)))[:, 0]

    def frames(self, times_s: Sequence[float]) -> Iterator[Pixels]:
        indices = np.searchsorted(self._starts, np.asarray(times_s) + 1e-4, side="right") - 1
        yield from self._video.get_batch(indices).asnumpy()

    def clip(self, start_s: float, end_s: float, out: Path) -> bool:
        return False


class Torchcodec(InOrder):
    def __init__(self, path: Path) -> None:
        from torchcodec.decoders import VideoDecoder

        self.version = importlib.metadata.version("torchcodec")
        self._video = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=0)

    def frames(self, times_s: Sequence[float]) -> Iterator[Pixels]:
        import cv2

        for first in range(0, len(times_s), 64):
            for frame in self._video.get_frames_played_at(list(times_s[first : first + 64])).data.numpy():
                yield cv2.resize(frame, SIZE, interpolation=cv2.INTER_AREA)

    def clip(self, start_s: float, end_s: float, out: Path) -> bool:
        return False


class Ffmpeg(InOrder):
    """One process a frame, or one for a run of frames that lie close."""

    def __init__(self, path: Path) -> None:
        told = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, check=True).stdout
        self.version, self._path = told.split()[2], str(path)

    def frames(self, times_s: Sequence[float]) -> Iterator[Pixels]:
        numbers = [int(time_s * 25 + 1e-4) for time_s in times_s]
        picture = ("-vf", "scale=448:252:flags=area", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
        if numbers[-1] - numbers[0] <= NEAR_FRAMES:
            frames = self._frames(numbers[0], "-frames:v", str(numbers[-1] - numbers[0] + 1), *picture)
            yield from (frames[number - numbers[0]] for number in numbers)
        else:
            yield from (self._frames(number, "-frames:v", "1", *picture)[0] for number in numbers)

    def clip(self, start_s: float, end_s: float, out: Path) -> bool:
        self._run(start_s, "-t", str(end_s - start_s), "-c", "copy", "-y", str(out))
        return True

    def _frames(self, number: int, *options: str) -> Pixels:
        data = self._run(max(0.0, number / 25 - 0.01), *options)  # it gives the first frame at or after a time
        return np.frombuffer(data, np.uint8).reshape(-1, SIZE[1], SIZE[0], 3)

    def _run(self, start_s: float, *options: str) -> bytes:
        command = ["ffmpeg", "-v", "error", "-ss", f"{start_s:.3f}", "-i", self._path, *options]
        return subprocess.run(command, capture_output=True, check=True).stdout


class FfmpegEncoding(Ffmpeg):
    """The command as it is used where the span has to be exact."""

    def clip(self, start_s: float, end_s: float, out: Path) -> bool:
        first, last = int(start_s * 25 + 1e-4), int(end_s * 25 + 1 - 1e-4)
        span = ("-frames:v", str(last - first), "-c:v", "libx264", "-preset", "veryfast", "-crf", "18")
        self._run(max(0.0, first / 25 - 0.01), *span, "-y", str(out))
        return True


LIBRARIES: dict[str, type[Any]] = {
    "keyeloop": Keyeloop,
    "keyeloop, key frames": KeyeloopKeys,
    "OpenCV": OpenCV,
    "decord": Decord,
    "torchcodec": Torchcodec,
    "ffmpeg command": Ffmpeg,
    "ffmpeg, encoding": FfmpegEncoding,
}
