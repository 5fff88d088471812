"""When: find the moment at which a text first appears, coarse to fine.

Looks are 4 s apart, eight frames a clip, until the text is seen; then half a second apart between the two frames
that it lies between. No look needs more arithmetic than steps of 4 and one of a half.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from keyeloop.agent.prompt import task_text
from keyeloop.runtime.content import Part, Text, Video
from keyeloop.runtime.evidence import View
from keyeloop.tools.demo_video.questions import Question
from keyeloop.tools.demo_video.timeline import BoardVideo, Shot
from keyeloop.tools.video.wording import seconds
from training.keye_tiny import speech
from training.keye_tiny.second import wordings
from training.keye_tiny.second.episode import Lesson
from training.keye_tiny.second.videos import demo_cuts, draw_cuts, draw_text, draw_video
from training.keye_tiny.world import NAME, World

STEP_S = 4
"""Seconds between the frames of the first looks."""
FINE_S = 0.5
"""Between those of the last."""
CLIP_FRAMES = 8
"""Most frames of one look."""
SHORTEST_S = 4.1
"""Of a shot where cuts are drawn freely: the first looks see every one."""
LENGTHS_S = (15, 75)
DEMO_S = 60.0
"""Length of what ``demo-video`` writes: a quarter of the videos are that long."""
AS_DEMO = 0.5
"""Part of the videos that are cut as ``demo-video`` cuts them; a shot too short to be seen is not asked for."""
WITHIN_S = 0.5
ABSENT = 0.08
"""Part of the questions about a text that never appears."""
SAID = re.compile(r"(?:(\d+):)?(\d+(?:\.\d+)?)\s*(?:s\b|seconds?\b)?")


class When(Lesson):
    """``When does 4711 first appear?``"""

    distractors = (0,)

    def draw(self) -> tuple[Question, World]:
        while True:
            video = self._video()
            seen = [shot for shot in video.shots if shot.board and self._is_seen(video, shot)]
            if seen:
                return self._ask(video, seen), World(video)

    def _ask(self, video: BoardVideo, seen: Sequence[Shot]) -> Question:
        rng = self.rng
        if rng.random() < ABSENT:
            shown = [text for shot in video.shots for text in (shot.board, shot.sign or "")]
            self.wanted = draw_text(rng, shown, blank=0.0)
            text = wordings.ask_when(rng, self.wanted, heldout=self.heldout)
            return Question("when", text, "not there", 0.0, video.duration_s, ())
        shot = rng.choice(seen)
        self.wanted = shot.board
        text = wordings.ask_when(rng, self.wanted, heldout=self.heldout)
        times_s = (min(shot.start_s + WITHIN_S, video.end_of(shot) - 0.1),)
        return Question("when", text, f"{shot.start_s:.1f} s", shot.start_s, video.end_of(shot), times_s)

    def _video(self) -> BoardVideo:
        rng = self.rng
        length_s = DEMO_S if rng.random() < 0.25 else float(rng.randint(*LENGTHS_S))
        if length_s != DEMO_S and rng.random() < 0.2:
            length_s = round(length_s - rng.random(), 1)
        if rng.random() < AS_DEMO:
            cuts = demo_cuts(rng, length_s)
        else:
            cuts = draw_cuts(rng, length_s, rng.randint(2, min(12, int(length_s / 4.4))), SHORTEST_S + 0.1)
        boards: list[str] = []
        for _ in cuts:
            boards.append(draw_text(rng, boards))
        signed = rng.random() < 0.5
        shots = [
            Shot(start_s, board, draw_text(rng, boards, blank=0.0) if signed and rng.random() < 0.8 else None)
            for start_s, board in zip(cuts, boards, strict=True)
        ]
        return draw_video(rng, self.atlas, shots, length_s, heldout=self.heldout, difficulty=self.difficulty)

    @staticmethod
    def _is_seen(video: BoardVideo, shot: Shot) -> bool:
        """Whether a look of the first ones falls into a shot."""
        return any(video.shot_at(float(at_s)) is shot for at_s in range(0, last_look_s(video.duration_s) + 1, STEP_S))

    def opening(self) -> tuple[Part, ...]:
        return (Text(task_text(self.question.text, [self.source])),)

    def teach(self) -> str:
        last_s = last_look_s(self.world.video.duration_s)
        if self.turns() == 0:
            return self._look_from(f"Every {STEP_S} s to {last_s} s.", 0.0, last_s, STEP_S)
        start_s, step_s = self._last_look()
        fresh = [view for view in self.world.views if view.handle in self._fresh()]
        read = self._read_up_to(fresh)
        thought = " ".join(f"{view.handle} {self.said_board(view)}" for view in read) + "."
        found = self.board(read[-1]) == self.wanted
        at_s = start_s + (len(read) - 1) * step_s
        if step_s == FINE_S or (found and at_s == 0.0):
            first = self._first(list(self.world.views))
            return speech.say(thought, f"{seconds(first.time_s)} {self._cite(first)}")
        if found:
            before_s = at_s - STEP_S
            thought = f"{thought} Not at {before_s:g} s, at {at_s:g} s."
            return self._look_from(thought, before_s + FINE_S, at_s - FINE_S, FINE_S)
        if at_s < last_s:
            return self._look_from(f"{thought} Not yet.", at_s + STEP_S, last_s, STEP_S)
        return speech.say(thought, f"Not there: {self.wanted} is in no frame, one every {STEP_S} s.")

    def right(self) -> bool:
        if self.question.answer == "not there":
            return (self.answer or "").casefold().startswith("not there")
        found = SAID.match((self.answer or "").strip())
        if found is None:
            return False
        said_s = 60 * int(found[1] or 0) + float(found[2])
        return abs(said_s - self.question.start_s) <= WITHIN_S + 1e-6

    def looked(self) -> bool:
        if self.question.answer == "not there":
            return len(list(self.world.views)) > 0
        start_s = self.question.start_s
        times = [view.time_s for view in self.world.views if view.time_s is not None]
        return any(start_s - 1e-6 <= time_s <= start_s + WITHIN_S + 1e-6 for time_s in times)

    def _readings(self) -> list[str]:
        """What the assistant has read so far, frame by frame: the trajectory's own thoughts say it."""
        said = re.compile(r"(?<!\w)f\d+ (\S+?)(?= f\d|\.(?: |\n|$))")
        spoken = (message.raw or "" for message in self.messages if message.role == "assistant")
        return [text for raw in spoken for text in said.findall(raw.split("</think>")[0]) if text != "-"]

    def _look_from(self, thought: str, start_s: float, last_s: float, step_s: float) -> str:
        """A look at as many moments as one clip takes, none after ``last_s``."""
        frames = min(round((last_s - start_s) / step_s) + 1, CLIP_FRAMES)
        arguments: dict[str, object] = {
            "video": NAME,
            "start_s": speech.number(start_s),
            "end_s": speech.number(start_s + (frames - 1) * step_s),
            "max_frames": frames,
        }
        return speech.call(thought, ("clip_video", arguments))

    def _read_up_to(self, views: list[View]) -> list[View]:
        """The views up to the first that shows what is wanted."""
        for place, view in enumerate(views):
            if self.board(view) == self.wanted:
                return views[: place + 1]
        return views

    def _first(self, views: list[View]) -> View:
        """The earliest view that shows what is wanted."""
        return min((view for view in views if self.board(view) == self.wanted), key=lambda view: view.time_s or 0.0)

    def _last_look(self) -> tuple[float, float]:
        """``start_s`` of the last look, and the seconds between its moments."""
        calls = [call for message in self.messages for call in message.tool_calls if call.name == "clip_video"]
        start_s = float(calls[-1].arguments["start_s"])
        return start_s, float(STEP_S) if start_s % STEP_S == 0 else FINE_S

    def _fresh(self) -> frozenset[str]:
        """Handles of the frames that the last look showed."""
        clips = [part for part in self.messages[-1].parts if isinstance(part, Video)]
        return frozenset(frame.view.handle for clip in clips for frame in clip.frames if frame.view is not None)


def last_look_s(duration_s: float) -> int:
    """The last moment of the first looks."""
    return STEP_S * (math.ceil(duration_s / STEP_S) - 1)
