"""Whole: the first message shows frames of the video, as ``watch`` puts them there; tools are for the second look."""

from __future__ import annotations

import random
from bisect import bisect_right
from dataclasses import replace
from typing import Literal

from keyeloop.agent.prompt import task_text
from keyeloop.runtime.content import Image, MediaRef, Part, Text, Video
from keyeloop.runtime.evidence import Region, View
from keyeloop.tools.demo_video import questions
from keyeloop.tools.demo_video.questions import Question
from keyeloop.tools.demo_video.scene import sign_region, text_region
from keyeloop.tools.demo_video.timeline import BoardVideo, Shot
from keyeloop.tools.video.schedule import OVERVIEW, WHOLE, Film, Pace, Schedule, schedule
from keyeloop.tools.video.wording import clip_text
from training.keye_tiny import speech, wordings
from training.keye_tiny.sample import Shown
from training.keye_tiny.second.episode import Lesson
from training.keye_tiny.second.videos import demo_cuts, draw_cuts, draw_text, draw_video
from training.keye_tiny.trajectories import REWORDED, pick_time, zoom_box
from training.keye_tiny.world import COST, HEIGHT, NAME, WIDTH, World

BUDGETS_TOKENS = {"whole": 20_000, "overview": 2048}
"""What a run of keye-tiny sets aside for the frames of its first message; at its sizes neither is ever used up."""
TEXT_TOKENS = 24
"""More than the words of one frame take."""
PACES: dict[str, Pace] = {"whole": WHOLE, "overview": OVERVIEW}
WATCHED_WHOLE = 0.5
"""Part of the videos that are watched whole; of others a few frames are shown."""
SHORT = 0.15
"""Part of the videos that last 3 to 10 s."""
AS_DEMO = 0.3
"""Part of the videos that are cut as ``demo-video`` cuts them; all others have longer shots and last up to 4,000 s."""


class Whole(Lesson):
    """``What number is on the board at 83 s?``, frames first."""

    needed = ("zoom",)

    def draw(self) -> tuple[Question, World]:
        while True:
            self.watch: Literal["whole", "overview"] = "whole" if self.rng.random() < WATCHED_WHOLE else "overview"
            video = self._video()
            world = World(video)
            question = self._question(video)
            if question is not None:
                return question, world

    def opening(self) -> tuple[Part, ...]:
        clip = show(self.world, plan(self.world.video, self.watch))
        views = [frame.view for frame in clip.frames if frame.view is not None]
        asked = Text(task_text(self.question.text, [self.source]))
        return (Text(clip_text(NAME, views)), clip, Text("\n"), asked)

    def teach(self) -> str:
        turn, views = self.turns(), list(self.world.views)
        time_s = self.question.times_s[0]
        frames = [view for view in views if view.parent is None]
        crops = [view for view in views if view.parent is not None]
        if turn == 0:
            around = self._around(frames, time_s)
            thought = self._said(around)
            if not self._settles(around):
                return speech.call(f"{thought} Look at {time_s:g} s.".strip(), self._clip(time_s))
            return self._conclude(around[0], thought)
        if crops:
            return speech.say("", f"{self.question.answer} {self._cite(crops[-1], sign=True)}")
        if "ends at" in self.messages[-1].text:
            return speech.say("", f"Not there: {NAME} ends at {self.world.video.duration_s:.1f} s.")
        return self._conclude(frames[-1], "")

    def right(self) -> bool:
        if self.question.answer == "not there":
            return (self.answer or "").casefold().startswith("not there")
        return super().right()

    def looked(self) -> bool:
        time_s, video = self.question.times_s[0], self.world.video
        if time_s >= video.duration_s:
            return True
        shot = video.shot_at(time_s)
        return any(view.time_s is not None and video.shot_at(view.time_s) is shot for view in self.world.views)

    def gold_region(self) -> Region | None:
        if self.question.answer == "not there":
            return None
        scene = self.world.video.scene_at(self.question.times_s[0])
        return sign_region(scene, 0, self.atlas) if self._asks_sign else text_region(scene, self.atlas)

    def _readings(self) -> list[str]:
        first = next((message.raw or "" for message in self.messages if message.role == "assistant"), "")
        thought = first.split("</think>")[0]
        around = self._around([view for view in self.world.views if view.parent is None], self.question.times_s[0])
        said = [self.board(view) for view in around if f"{view.handle} {self.said_board(view)}" in thought]
        found = [text for text in said if text]
        return found if self.question.answer == "not there" else [*found, self.question.answer]

    # -- the teacher -----------------------------------------------------------------------------------------------
    def _around(self, frames: list[View], time_s: float) -> list[View]:
        """The frame on screen at a moment where it is shown, else those before and after it, as far as there are."""
        frames = [view for view in frames if view.handle in self._opened]
        times = [view.time_s or 0.0 for view in frames]
        after = bisect_right(times, time_s + 1e-6)
        return frames[after - 1 : after] if self._is_on(frames[after - 1], time_s) else frames[after - 1 : after + 1]

    def _is_on(self, view: View, time_s: float) -> bool:
        """Whether a frame is the one on screen at a moment."""
        video = self.world.video
        return time_s < video.duration_s and abs((view.time_s or 0.0) - video.frame_time(time_s)) < 1e-6

    @property
    def _opened(self) -> frozenset[str]:
        """Handles of the frames in the first message."""
        user = next(message for message in self.messages if message.role == "user")
        clips = [part for part in user.parts if isinstance(part, Video)]
        return frozenset(frame.view.handle for clip in clips for frame in clip.frames if frame.view is not None)

    def _said(self, around: list[View]) -> str:
        return ", ".join(f"{view.handle} {self.said_board(view)}" for view in around) + "."

    def _settles(self, around: list[View]) -> bool:
        """Whether these frames tell what is shown at the moment asked about."""
        if len(around) == 1:
            return self._is_on(around[0], self.question.times_s[0])
        return self.board(around[0]) == self.board(around[1])

    def _conclude(self, view: View, thought: str) -> str:
        if self._asks_sign and self.question.answer != "not there":
            box = zoom_box(sign_region(self.world.shown[view.handle].scene, 0, self.atlas))
            return speech.call(f"{thought} Too small; zoom in.".strip(), ("zoom", {"view": view.handle, "box": box}))
        if self.question.answer == "not there":
            what = "there is no small sign at" if self._asks_sign else "the board is empty at"
            return speech.say(thought, f"Not there: {what} {self.question.times_s[0]:g} s [{view.handle}]")
        return speech.say(thought, f"{self.question.answer} {self._cite(view)}")

    def _clip(self, time_s: float) -> tuple[str, dict[str, object]]:
        moment = speech.number(time_s)
        return "clip_video", {"video": NAME, "start_s": moment, "end_s": moment, "max_frames": 1}

    @property
    def _asks_sign(self) -> bool:
        return "small sign" in self.question.text

    # -- drawing ---------------------------------------------------------------------------------------------------
    def _video(self) -> BoardVideo:
        rng = self.rng
        share = rng.random()
        if share < SHORT:
            length_s = round(rng.uniform(3, 10), 1)
            cuts = _cuts(rng, length_s, rng.randint(2, 3))
        elif share < SHORT + AS_DEMO:
            length_s = 60.0 if rng.random() < 0.5 else float(rng.randint(20, 90))
            cuts = demo_cuts(rng, length_s)
        else:
            length_s = float(round(10 * 400 ** rng.random()))
            cuts = _cuts(rng, length_s, rng.randint(2, 6))
        boards: list[str] = []
        for _ in cuts:
            boards.append(draw_text(rng, boards))
        signed = rng.random() < 0.4
        signs = [draw_text(rng, boards, blank=0.0) if signed and rng.random() < 0.85 else None for _ in cuts]
        shots = [Shot(*each) for each in zip(cuts, boards, signs, strict=True)]
        return draw_video(rng, self.atlas, shots, length_s, heldout=self.heldout, difficulty=self.difficulty)

    def _question(self, video: BoardVideo) -> Question | None:
        rng = self.rng
        shot = rng.choice(video.shots)
        time_s = pick_time(rng, video, shot, self.heldout)
        if time_s is None:
            return None
        sign = rng.random() < (0.55 if shot.sign else 0.08)
        if rng.random() < 0.04:
            past_s = float(round(video.duration_s + rng.choice((1, 3, 10, 60)) * rng.uniform(0.5, 1.5)) + 1)
            asked = questions.ask_past_end(rng, video, past_s, heldout=self.heldout)
        elif sign and shot.sign:
            asked = questions.ask_sign(rng, video, shot, time_s, heldout=self.heldout)
        elif sign or not shot.board:
            asked = questions.ask_blank(rng, video, shot, time_s, heldout=self.heldout)
        else:
            asked = questions.ask_read(rng, video, shot, time_s, heldout=self.heldout)
        if not self.heldout and rng.random() < REWORDED:
            said = [questions.say_time(rng, moment_s) for moment_s in asked.times_s]
            asked = replace(asked, text=wordings.reword(rng, asked, said))
        return replace(asked, family="whole")


def plan(video: BoardVideo, watch: str) -> Schedule:
    """The frames that a run of keye-tiny shows of a video in its first message."""
    film = Film(video.duration_s, video.fps, WIDTH, HEIGHT)
    return schedule(film, PACES[watch], BUDGETS_TOKENS[watch], COST, TEXT_TOKENS)


def _cuts(rng: random.Random, length_s: float, count: int) -> list[float]:
    return draw_cuts(rng, length_s, count, 0.6 * length_s / count)


def show(world: World, schedule: Schedule) -> Video:
    """The frames of a schedule, under handles of the world."""
    frames = []
    for time_s in sorted({world.video.frame_time(moment_s) for moment_s in schedule.moments_s}):
        view = world.views.frame(NAME, "", time_s, Region(0, 0, WIDTH, HEIGHT))
        width, height = schedule.size.width, schedule.size.height
        world.shown[view.handle] = Shown(world.video.scene_at(time_s), view.region, width, height)
        frames.append(Image(MediaRef("", "image/jpeg", 0, width, height), view))
    return Video(tuple(frames))
