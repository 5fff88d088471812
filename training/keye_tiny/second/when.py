"""When: find the moment at which a text first appears, coarse to fine.

Looks are 8, 2 and half a second apart, so that no arithmetic is needed but steps of 2 and of a half.
"""

from __future__ import annotations

import re

from keyeloop.agent.prompt import task_text
from keyeloop.runtime.content import Part, Text
from keyeloop.runtime.evidence import View
from keyeloop.tools.demo_video.questions import Question
from keyeloop.tools.demo_video.timeline import Shot
from keyeloop.tools.video.wording import seconds
from training.keye_tiny import speech
from training.keye_tiny.second import wordings
from training.keye_tiny.second.episode import Lesson
from training.keye_tiny.second.videos import draw_cuts, draw_text, draw_video
from training.keye_tiny.world import NAME, World

STEPS_S = (8.0, 2.0, 0.5)
"""Seconds between the frames of the first, second and third look."""
SHORTEST_S = 8.2
"""Of a shot: the first look sees every one."""
LONGEST_S = 56.0
WITHIN_S = 0.5
ABSENT = 0.08
"""Part of the questions about a text that never appears."""
SAID = re.compile(r"(?:(\d+):)?(\d+(?:\.\d+)?)\s*(?:s\b|seconds?\b)?")


class When(Lesson):
    """``When does 4711 first appear?``"""

    def draw(self) -> tuple[Question, World]:
        rng = self.rng
        length_s = float(rng.randint(20, round(LONGEST_S)))
        if rng.random() < 0.2:
            length_s = round(length_s - rng.random(), 1)
        count = rng.randint(2, min(5, int(length_s / (SHORTEST_S + 0.3))))
        boards: list[str] = []
        for _ in range(count):
            boards.append(draw_text(rng, boards))
        if not any(boards):
            return self.draw()
        signed = rng.random() < 0.25
        cuts = draw_cuts(rng, length_s, count, SHORTEST_S + 0.1)
        shots = [
            Shot(start_s, board, draw_text(rng, boards, blank=0.0) if signed else None)
            for start_s, board in zip(cuts, boards, strict=True)
        ]
        video = draw_video(rng, self.atlas, shots, length_s, heldout=self.heldout, difficulty=self.difficulty)
        if rng.random() < ABSENT:
            self.wanted = draw_text(rng, [*boards, *(shot.sign or "" for shot in shots)], blank=0.0)
            text = wordings.ask_when(rng, self.wanted, heldout=self.heldout)
            return Question("when", text, "not there", 0.0, length_s, ()), World(video)  # type: ignore[arg-type]
        shot = rng.choice([shot for shot in shots if shot.board])
        self.wanted = shot.board
        text = wordings.ask_when(rng, self.wanted, heldout=self.heldout)
        span = (shot.start_s, video.end_of(shot))
        question = Question("when", text, f"{shot.start_s:.1f} s", *span, (shot.start_s + WITHIN_S,))  # type: ignore[arg-type]
        return question, World(video)

    def opening(self) -> tuple[Part, ...]:
        return (Text(task_text(self.question.text, [self.source])),)

    def teach(self) -> str:
        turn, views = self.turns(), list(self.world.views)
        if turn == 0:
            last = 8 * (-(-self.world.video.duration_s // 8) - 1)
            return self._look_from(f"Every {STEPS_S[0]:g} s to {last:g} s.", 0.0, last, STEPS_S[0])
        fresh = views[-3:] if turn > 1 else views
        read = self._read_up_to(fresh)
        thought = ", ".join(f"{view.handle} {self.said_board(view)}" for view in read) + "."
        if turn == 1 and self.board(read[-1]) != self.wanted:
            return speech.say(thought, f"Not there: {self.wanted} does not appear.")
        if turn == 3 or self._first(views).time_s == 0.0:
            first = self._first(views)
            return speech.say(thought, f"{seconds(first.time_s)} {self._cite(first)}")
        before_s = self._asked_s(turn, read)
        step = STEPS_S[turn]
        start_s, end_s = before_s + step, before_s + STEPS_S[turn - 1] - step
        return self._look_from(f"{thought} Look at {start_s:g} s to {end_s:g} s.", start_s, end_s, step)

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
        return any(start_s <= time_s <= start_s + WITHIN_S for time_s in times)

    def _readings(self) -> list[str]:
        """What the assistant has read so far, frame by frame: the trajectory's own thoughts say it."""
        said = re.compile(r"(?<!\w)f\d+ (\S+?)(?=, f\d|\.(?: |\n|$))")
        spoken = (message.raw or "" for message in self.messages if message.role == "assistant")
        return [text for raw in spoken for text in said.findall(raw.split("</think>")[0]) if text != "-"]

    def _look_from(self, thought: str, start_s: float, end_s: float, step_s: float) -> str:
        arguments: dict[str, object] = {
            "video": NAME,
            "start_s": speech.number(start_s),
            "end_s": speech.number(end_s),
            "max_frames": round((end_s - start_s) / step_s) + 1,
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

    def _asked_s(self, turn: int, read: list[View]) -> float:
        """The asked-for moment of the last frame before the text appears, a multiple of this look's step."""
        step = STEPS_S[turn - 1]
        shown = self.board(read[-1]) == self.wanted
        at = len(read) - 1 if shown else len(read)
        if turn == 1:
            return (at - 1) * step
        begin = float(self._starts()[-1])
        return begin + (at - 1) * step

    def _starts(self) -> list[float]:
        """``start_s`` of every look so far."""
        return [
            float(call.arguments["start_s"])
            for message in self.messages
            for call in message.tool_calls
            if call.name == "clip_video"
        ]
