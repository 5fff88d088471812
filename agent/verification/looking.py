"""Whole runs on a rendered video: whether a server's model calls, sees, reads the time and draws boxes as expected."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from keyeloop.agent.agent import Agent
from keyeloop.agent.verification.board import Asked, ProbeVideo
from keyeloop.agent.verification.boxes import OURS, Drawn, best_reading
from keyeloop.model_backend.base import ModelBackend, Sampling
from keyeloop.model_backend.toolcalls import THINK_CLOSE
from keyeloop.model_backend.verification.finding import Finding, judged
from keyeloop.runtime.citations import parse_citations, strip_citations
from keyeloop.runtime.events import ReplyReceived
from keyeloop.runtime.trajectory import Trajectory
from keyeloop.tools import ClipVideo

WITHIN_S = 0.5
MOST_OUTPUT_TOKENS = 16_384
"""A thinking model needs room to come to an end."""
KNOWN_ANSWER = "a rendered video whose answer is known"
ASPECTS = {
    "calls-live": ("calls arrive as calls", "model_backend/toolcalls.py"),
    "thinking-live": ("thinking is closed before the answer", "model_backend/toolcalls.py"),
    "seen-live": ("numbers in a tool's pictures are read", "model_backend/keye/template.py"),
    "time-live": (f"answers rest on frames within {WITHIN_S} s", "model_backend/keye/template.py"),
    "boxes-live": (OURS, "runtime/evidence.py"),
}
"""By key: what is expected of a run, and the file of ours that says so."""


@dataclass(frozen=True)
class Played:
    """One question as it went."""

    asked: Asked
    run: Trajectory

    @property
    def replies(self) -> tuple[ReplyReceived, ...]:
        return tuple(step.reply for step in self.run.steps if step.reply is not None)

    def shown_s(self, video: ProbeVideo) -> tuple[float, float] | None:
        """When the number of the answer is on screen; None where it never is: three digits are not guessed."""
        said = set(re.findall(r"\d+", strip_citations(self.run.answer)))
        shots = sorted(video.video.shots, key=lambda shot: shot.board != self.asked.answer)
        return next(((shot.start_s, video.video.end_of(shot)) for shot in shots if shot.board in said), None)

    @property
    def rests_on_s(self) -> tuple[float, ...]:
        """Moments of the cited views, or else of all that were looked at."""
        cited = [citation.time_s for citation in self.run.citations if citation.time_s is not None]
        looked = [view.time_s for view in self.run.views().values() if view.time_s is not None]
        return tuple(cited or looked)


async def play(backend: ModelBackend, video: ProbeVideo, scratch: Path, runs: Path) -> tuple[Played, ...]:
    """Ask every question of the video, rendered in ``scratch``, in a run of its own, recorded below ``runs``.

    Raises BackendError when the model cannot be asked.
    """
    path = scratch / "board.mp4"
    video.write(path)
    most = min(MOST_OUTPUT_TOKENS, backend.capabilities().context_tokens // 2)
    agent = Agent(backend, [ClipVideo()], runs=runs, sampling=Sampling(max_tokens=most))
    played = []
    for asked in video.asked:
        answer = await agent.run(asked.text, video=path)
        played.append(Played(asked, Trajectory.read(answer.run)))
    return tuple(played)


def judge(played: Sequence[Played], video: ProbeVideo) -> Iterator[Finding]:
    """What the runs show."""
    yield _calls(played)
    yield _thinking(played)
    yield _seen(played, video)
    yield _time(played, video)
    yield _boxes(played, video)


def not_asked(why: str) -> Iterator[Finding]:
    """The same findings where the runs could not be made."""
    for key in ASPECTS:
        yield _finding(key, None, f"not asked: {why}")


def _finding(key: str, holds: bool | None, found: str, settles: tuple[str, ...] = ()) -> Finding:
    expected, change = ASPECTS[key]
    source = "technical report: boxes in 0..1000" if key == "boxes-live" else KNOWN_ANSWER
    return judged(key, None, holds, expected=expected, found=found, source=source, change=change, settles=settles)


def _calls(played: Sequence[Played]) -> Finding:
    called = [one for one in played if any(step.calls for step in one.run.steps)]
    broken = [bad for one in played for reply in one.replies for bad in reply.malformed]
    found = f"{len(called)} of {len(played)} runs called clip_video"
    if broken:
        found += f"; {len(broken)} calls could not be read, such as {broken[0].text[:60]!r} ({broken[0].problem})"
    return _finding("calls-live", bool(called) and not broken, found, ("template-tools",))


def _thinking(played: Sequence[Played]) -> Finding:
    """An answer that stands inside unclosed thinking would be lost on a strict reader."""
    replies = [reply for one in played for reply in one.replies]
    thought = [reply for reply in replies if reply.message.reasoning]
    unclosed = [reply for reply in thought if THINK_CLOSE not in (reply.message.raw or "")]
    cut = [reply for reply in replies if reply.finish == "length"]
    wrong = [f"{len(found)} of {len(replies)} replies {what}" for found, what in
             ((unclosed, "never close it"), (cut, "were cut")) if found]  # fmt: skip
    found = "; ".join(wrong) or f"{len(thought)} of {len(replies)} replies think, all close it and go on"
    return _finding("thinking-live", not wrong if replies else None, found, ("template-thinking",))


def _seen(played: Sequence[Played], video: ProbeVideo) -> Finding:
    """One number read is enough."""
    read = [one for one in played if one.shown_s(video) is not None]
    called = any(step.calls for one in played for step in one.run.steps)
    said = next((f", another answer: {one.run.answer[:60]!r}" for one in played if one not in read), "")
    found = f"{len(read)} of {len(played)} answers read a number{said}"
    settles = ("template-tool-pictures", "patch-order", "pixel-values", "patch-size")
    return _finding("seen-live", bool(read) if called else None, found, settles)


def _time(played: Sequence[Played], video: ProbeVideo) -> Finding:
    """Of answers that read a number: how far the views that they rest on are from the moment asked for."""
    read = [one for one in played if one.shown_s(video) is not None and one.rests_on_s]
    off = [min(abs(time_s - one.asked.time_s) for time_s in one.rests_on_s) for one in read]
    wrong = [one for one in read if one.run.answer and not _spans(one, video)]
    found = f"at most {max(off):.1f} s off" if off else "no answer to measure"
    if wrong:
        found += f"; {len(wrong)} of {len(played)} answers read the number of another moment"
    return _finding("time-live", max(off) <= WITHIN_S and not wrong if off else None, found)


def _spans(one: Played, video: ProbeVideo) -> bool:
    start_s, end_s = one.shown_s(video) or (0.0, 0.0)
    return start_s <= one.asked.time_s < end_s


def _boxes(played: Sequence[Played], video: ProbeVideo) -> Finding:
    drawn = [box for one in played if one.shown_s(video) for box in _drawn(one, video)]
    reading, overlap = best_reading(drawn)
    found = "no box in an answer that reads a number"
    if drawn:
        found = f"{len(drawn)} boxes, mean overlap {overlap:.2f} as {reading or 'any reading'}"
    return _finding("boxes-live", reading == OURS if drawn else None, found)


def _drawn(one: Played, video: ProbeVideo) -> Iterator[Drawn]:
    views = one.run.views()
    for raw in parse_citations(one.run.answer):
        view = views.get(raw.handle or "")
        if raw.box is not None and view is not None and view.time_s is not None:
            yield Drawn(raw.box, view.region, video.number_region(view.time_s))
