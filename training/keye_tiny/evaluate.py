"""Play keye-tiny on held-out videos, free-running and greedy, and print how often it is right.

    python -m training.keye_tiny.evaluate --weights DIR --videos 100 --seeds 3 --out DIR/evaluation.json

Fonts, backgrounds, wordings and times are the held-out ones. Besides the plain runs: clips blanked, frames of another
video, a random selection instead of the indexer's, dense instead of sparse attention, and the training fonts.
Processes share the device; each plays one setting and seed. ``--families look_up when whole`` plays the second lesson.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from keyeloop.model_backend.keye.weights import load_folder
from keyeloop.tools.demo_video.glyphs import GlyphAtlas
from training.keye_tiny.arena import Arena
from training.keye_tiny.batch import Loader
from training.keye_tiny.boards import blank_render, bundled_atlas, open_render
from training.keye_tiny.export import after_int8
from training.keye_tiny.model import KeyeTiny
from training.keye_tiny.pieces import load_pieces
from training.keye_tiny.play import Selection
from training.keye_tiny.sample import Shown, tokenizer
from training.keye_tiny.second import source as second_source
from training.keye_tiny.second.episode import Lesson
from training.keye_tiny.second.lesson import EVERY, SECOND, open_episode
from training.keye_tiny.shape import TinyShape
from training.keye_tiny.source import open_source
from training.keye_tiny.supply import Buckets
from training.keye_tiny.trajectories import FAMILIES, Episode

LONG_SLOTS, LONG_TURN_TOKENS = 2560, 256
"""Room for the second lesson: its longest runs take 2,300 tokens, its longest turns 170."""
BOX = re.compile(r"\[(\w+) (\d+),(\d+),(\d+),(\d+)\]")


@dataclass(frozen=True)
class Setting:
    """One way of playing."""

    name: str
    seed: int
    selection: Selection = "indexer"
    blank: bool = False
    swap: bool = False
    heldout: bool = True


@dataclass(frozen=True)
class Score:
    """How one family went."""

    family: str
    played: int
    right: int
    cited: int
    """Right, and the first box of the answer overlaps the true one by half or more."""
    called: int
    """Episodes whose first turn looked at the asked moment."""
    misses: tuple[str, ...]
    """A few wrong runs: question, expected answer, what was said."""


def settings(seeds: int) -> list[Setting]:
    """Plain runs on every seed, then the ablations on the first."""
    return [
        *(Setting("held out", seed) for seed in range(1, seeds + 1)),
        Setting("training fonts", 1, heldout=False),
        Setting("clips blanked", 1, blank=True),
        Setting("another video's frames", 1, swap=True),
        Setting("random selection", 1, selection="random"),
        Setting("dense attention", 1, selection="dense"),
    ]


def load_model(weights: Path, device: torch.device, *, int8: bool) -> KeyeTiny:
    """The network with trained weights in float32: an exported folder's, or a run's as they are after ``int8``."""
    if (weights / "config.json").is_file():
        return load_folder_model(weights).to(device)
    model = KeyeTiny(TinyShape())
    state = {name: value.float() for name, value in load_pieces(weights).items()}
    model.load_state_dict(after_int8(state) if int8 else state)
    return model.to(device).eval()


def load_folder_model(folder: Path) -> KeyeTiny:
    """The network with the weights of an exported model folder, as the runtime reads them."""
    model = KeyeTiny(TinyShape())
    model.load_state_dict(load_folder(folder).state_dict())
    return model.eval()


def play(
    setting: Setting, weights: Path, atlas_path: Path, videos: int, families: Sequence[str], int8: bool
) -> list[Score]:
    """Play one setting on one device and score it by family."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    model = load_model(weights, device, int8=int8)
    atlas = GlyphAtlas.load(atlas_path)
    second = bool(set(families) & set(SECOND))
    supply = second_source.open_source if second else open_source
    source, buckets = supply(atlas_path), Buckets(frame_chunk=64, mixed_chunk=16)
    render = blank_render(device) if setting.blank else open_render(atlas_path, device, setting.seed)
    rows = (32 if second else 128) if device.type == "cuda" else 24
    room = {"slots": LONG_SLOTS, "turn_tokens": LONG_TURN_TOKENS} if second else {}
    arena = Arena(model, source, Loader(model.shape, buckets, device, render), tokenizer(), buckets, rows_at_once=rows)
    episodes = [
        open_episode(random.Random(f"{setting.seed} {family} {index}"), family, atlas, heldout=setting.heldout)
        for family in EVERY
        if family in families
        for index in range(videos)
    ]
    swaps: list[Callable[[Shown], Shown]] | None = None
    if setting.swap:
        swaps = [
            partial(_swapped, _donor(episode, atlas, index, setting.heldout)) for index, episode in enumerate(episodes)
        ]
    together = len(episodes) if device.type == "cuda" else 100
    for first in range(0, len(episodes), together):
        some = slice(first, first + together)
        began = time.monotonic()
        arena.play(
            episodes[some],
            selection=setting.selection,
            swaps=swaps[some] if swaps else None,
            seed=setting.seed,
            **room,
        )
        right = sum(episode.right() for episode in episodes[some])
        done = f"{setting.name}, seed {setting.seed}: {first + len(episodes[some])} of {len(episodes)} played"
        print(f"{done}, {right} of the last {len(episodes[some])} right, {time.monotonic() - began:.0f} s", flush=True)
    return [_score(family, [one for one in episodes if one.family == family]) for family in EVERY if family in families]


def _donor(episode: Episode, atlas: GlyphAtlas, index: int, heldout: bool) -> Episode:
    """Another video of the same family whose answer differs."""
    for attempt in range(100):
        other = open_episode(random.Random(f"other {index} {attempt}"), episode.family, atlas, heldout=heldout)
        if not other.question.times_s:
            continue
        if other.question.answer != episode.question.answer or episode.family == "not_there":
            return other
    raise RuntimeError("found no other video with another answer")


def _swapped(donor: Episode, shown: Shown) -> Shown:
    return replace(shown, scene=donor.world.video.scene_at(donor.question.times_s[0]))


def _score(family: str, episodes: Sequence[Episode]) -> Score:
    wrong = [episode for episode in episodes if not episode.right()]
    return Score(
        family=family,
        played=len(episodes),
        right=len(episodes) - len(wrong),
        cited=sum(episode.right() and _cites(episode) for episode in episodes),
        called=sum(_looked(episode) for episode in episodes),
        misses=tuple(
            f"{episode.question.text} | wants {episode.question.answer} | "
            + " || ".join(message.raw or "" for message in episode.messages if message.role == "assistant")
            for episode in wrong[:4]
        ),
    )


def _cites(episode: Episode) -> bool:
    wanted = episode.gold_region()
    found = BOX.search(episode.answer or "")
    if wanted is None or found is None or found[1] not in episode.world.views:
        return wanted is None
    x0, y0, x1, y1 = (float(side) for side in found.groups()[1:])
    if not (0 <= x0 < x1 <= 1000 and 0 <= y0 < y1 <= 1000):
        return False
    return episode.world.views.find(found[1]).region_of((x0, y0, x1, y1)).iou(wanted) >= 0.5


def _looked(episode: Episode) -> bool:
    if isinstance(episode, Lesson):
        return episode.looked()
    times = [view.time_s for view in episode.world.views if view.time_s is not None]
    if not times:
        return episode.family == "not_there" and episode.question.times_s[0] >= episode.world.video.duration_s
    video = episode.world.video
    return all(
        any(abs(video.frame_time(wanted) - seen) < 1e-6 for seen in times) for wanted in episode.question.times_s
    )


def table(results: dict[str, dict[int, list[Score]]], families: Sequence[str]) -> str:
    """Percent right by setting and family, seeds averaged, and the spread of the seeds."""
    lines = [f"{'':26}" + "".join(f"{family:>16}" for family in families)]
    for name, by_seed in results.items():
        cells = []
        for place in range(len(families)):
            shares = [100 * scores[place].right / max(scores[place].played, 1) for scores in by_seed.values()]
            spread = f" ({min(shares):.0f}-{max(shares):.0f})" if len(shares) > 1 else ""
            cells.append(f"{sum(shares) / len(shares):.1f}{spread}")
        lines.append(f"{name:26}" + "".join(f"{cell:>16}" for cell in cells))
        cited = [100 * sum(s[p].cited for s in by_seed.values()) / max(sum(s[p].right for s in by_seed.values()), 1)
                 for p in range(len(families))]  # fmt: skip
        called = [100 * sum(s[p].called for s in by_seed.values()) / max(sum(s[p].played for s in by_seed.values()), 1)
                  for p in range(len(families))]  # fmt: skip
        lines.append(f"{'  looked rightly':26}" + "".join(f"{value:>16.1f}" for value in called))
        lines.append(f"{'  of the right: cited':26}" + "".join(f"{value:>16.1f}" for value in cited))
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="a training run's folder, or an exported one")
    parser.add_argument("--atlas", type=Path, default=bundled_atlas())
    parser.add_argument("--videos", type=int, default=100, help="videos a family, setting and seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--families", nargs="+", choices=EVERY, default=list(FAMILIES))
    parser.add_argument("--only", nargs="+", help="names of settings; all by default")
    parser.add_argument("--float", action="store_true", help="play the weights before the int8 round trip")
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    families = [family for family in EVERY if family in options.families]
    chosen = [one for one in settings(options.seeds) if not options.only or one.name in options.only]
    began = time.monotonic()
    run = partial(_play_named, options.weights, options.atlas, options.videos, families, not options.float)
    if options.jobs > 1:
        with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
            played = list(pool.map(run, chosen))
    else:
        played = [run(one) for one in chosen]
    results: dict[str, dict[int, list[Score]]] = {}
    for setting, scores in zip(chosen, played, strict=True):
        results.setdefault(setting.name, {})[setting.seed] = scores
    for name in ("held out",):
        for scores in results.get(name, {}).values():
            for score in scores:
                for miss in score.misses[:1]:
                    print(f"miss {score.family}: {miss[:400]}")
    print(table(results, families))
    print(f"{time.monotonic() - began:.0f} s", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(_plain(results, options), indent=1))


def _play_named(
    weights: Path, atlas: Path, videos: int, families: Sequence[str], int8: bool, setting: Setting
) -> list[Score]:
    return play(setting, weights, atlas, videos, families, int8)


def _plain(results: dict[str, dict[int, list[Score]]], options: argparse.Namespace) -> dict[str, Any]:
    return {
        "videos": options.videos,
        "int8": not options.float,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "settings": {
            name: {str(seed): [vars(score) for score in scores] for seed, scores in by_seed.items()}
            for name, by_seed in results.items()
        },
    }


if __name__ == "__main__":
    main()
