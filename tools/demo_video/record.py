"""Renders a board video to a file, with its questions and answers beside it."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av

from keyeloop.runtime.errors import InputError
from keyeloop.tools.demo_video import questions
from keyeloop.tools.demo_video.glyphs import GlyphAtlas
from keyeloop.tools.demo_video.paint import paint
from keyeloop.tools.demo_video.questions import Question
from keyeloop.tools.demo_video.timeline import BoardVideo, Shot, sample_video

TIME_BASE = Fraction(1, 90000)
WITHIN_S = 0.5
"""How far the answer to a ``when`` question may be off."""
LEAST_S = 4.0
"""Of a shot that a ``when`` question asks for: who looks every 4 s sees it."""


@dataclass(frozen=True)
class Recording:
    """A rendered video and what can be asked about it."""

    video: BoardVideo
    questions: tuple[Question, ...]
    path: Path
    answers_path: Path


def record(
    path: Path, seed: int, *, duration_s: float = 60.0, heldout: bool = False, moments: bool = False
) -> Recording:
    """Render the board video of ``seed`` to ``path`` (H.264, 1280 x 720) and its questions to ``path`` with ``.json``.

    The JSON is a list of ``{family, question, answer, start_s, end_s}``; a ``not_there`` answer is ``"not there"``.
    ``heldout`` takes fonts and backgrounds that keye-tiny was never trained on. ``moments`` adds questions of the
    family ``when``, with a ``tolerance`` of half a second. Raises InputError when ``path`` is not an ``.mp4`` file or
    its folder is missing.
    """
    path = Path(path)
    if path.suffix != ".mp4" or not path.parent.is_dir():
        raise InputError(f"{path}: name an .mp4 file in a folder that exists")
    rng = random.Random(seed)
    atlas = GlyphAtlas.bundled()
    video = sample_video(
        rng, atlas, heldout=heldout, duration_s=duration_s, shots=max(3, round(duration_s / 6)), signs=True
    )
    asked = ask(rng, video, moments=moments)
    answers_path = path.with_suffix(".json")
    encode(video, atlas, path)
    rows = [asdict(question) for question in asked]
    wanted = ("family", "question", "answer", "start_s", "end_s")
    lines = [{key: row["text" if key == "question" else key] for key in wanted} for row in rows]
    for line in lines:
        if line["family"] == "when":
            line["tolerance"] = WITHIN_S
    answers_path.write_text(json.dumps(lines, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return Recording(video, asked, path, answers_path)


def ask(rng: random.Random, video: BoardVideo, *, moments: bool = False) -> tuple[Question, ...]:
    """Questions of every family that the video can answer, in order of time; of ``when`` only with ``moments``."""
    found: list[Question] = []
    middles = [(shot, _second_within(shot.start_s, video.end_of(shot))) for shot in video.shots]
    numbers = [(shot, at) for shot, at in middles if shot.kind == "number"]
    for shot, at in middles:
        if shot.kind == "empty":
            found.append(questions.ask_blank(rng, video, shot, at))
        else:
            found.append(questions.ask_read(rng, video, shot, at))
        if shot.sign:
            found.append(questions.ask_sign(rng, video, shot, at))
    for (_, first_s), (_, second_s) in pairwise(numbers):
        found.append(questions.ask_compute(rng, video, first_s, second_s))
    if moments:
        found += [_ask_when(video, shot) for shot in video.shots if _is_found(video, shot)]
    found.append(questions.ask_past_end(rng, video, float(round(video.duration_s + 25))))
    return tuple(sorted((_plain(question) for question in found), key=lambda question: question.start_s))


def encode(video: BoardVideo, atlas: GlyphAtlas, path: Path, *, crf: int = 23, preset: str = "veryfast") -> None:
    """Encode every frame of ``video``; nothing is left of one that was broken off. InputError for a bad place."""
    partial = path.with_name(path.name + ".part")
    try:
        _write(video, atlas, partial, crf, preset)
        partial.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): name another .mp4 file") from None
    finally:
        partial.unlink(missing_ok=True)


def _write(video: BoardVideo, atlas: GlyphAtlas, partial: Path, crf: int, preset: str) -> None:
    """Paint once a shot, encode once a frame."""
    with av.open(str(partial), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(video.fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = video.look.width, video.look.height, "yuv420p"
        stream.options = {"crf": str(crf), "preset": preset, "threads": "1"}
        stream.codec_context.time_base = TIME_BASE
        painted, frame = None, None
        for index in range(round(video.duration_s * video.fps)):
            scene = video.scene_at(index / video.fps)
            if scene != painted:
                painted, frame = scene, av.VideoFrame.from_ndarray(paint(scene, atlas), format="rgb24")
            assert frame is not None
            frame.pts, frame.time_base = round(index / video.fps / TIME_BASE), TIME_BASE
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def _ask_when(video: BoardVideo, shot: Shot) -> Question:
    """When a text first appears, in words that take nothing from the draws of the other questions."""
    text, end_s = f"When does {shot.board} first appear?", video.end_of(shot)
    return Question("when", text, f"{shot.start_s:.1f} s", shot.start_s, end_s, (shot.start_s,))


def _is_found(video: BoardVideo, shot: Shot) -> bool:
    """Whether a shot's text is shown for 4 s or more, and never else."""
    others = {text.casefold() for other in video.shots if other is not shot for text in (other.board, other.sign or "")}
    return bool(shot.board) and shot.board.casefold() not in others and video.end_of(shot) - shot.start_s >= LEAST_S


def _plain(question: Question) -> Question:
    """The question without its opener."""
    for opener in filter(None, questions.OPENERS):
        if question.text.startswith(opener):
            return replace(question, text=question.text.removeprefix(opener))
    return question


def _second_within(start_s: float, end_s: float) -> float:
    middle = (start_s + end_s) / 2
    return float(round(middle)) if start_s < round(middle) < end_s else round(middle, 1)
