"""Whole runs of the task families: what the teacher would say at every turn, and whether an answer is right.

An :class:`Episode` is played twice over: by its own teacher for training, by the model for evaluation. Messages,
template and words are those of a real run.
"""

from __future__ import annotations

import random
from dataclasses import replace

from keyeloop.agent.prompt import system_text, task_text
from keyeloop.model_backend.toolcalls import ParsedCall, parse_reply
from keyeloop.runtime.citations import strip_citations
from keyeloop.runtime.content import Message, Part, Text, ToolCall, ToolSpec
from keyeloop.runtime.errors import ToolError
from keyeloop.runtime.evidence import Region, Source, View
from keyeloop.tools.demo_video import questions
from keyeloop.tools.demo_video.glyphs import GlyphAtlas
from keyeloop.tools.demo_video.questions import Family, Question
from keyeloop.tools.demo_video.scene import sign_region, text_region
from keyeloop.tools.demo_video.timeline import BoardVideo, Shot, sample_video
from training.keye_tiny import speech, wordings
from training.keye_tiny.builtin import builtin_specs
from training.keye_tiny.named_tools import NamedCall, sample_call, sample_distractor
from training.keye_tiny.sample import Sample, lay_out
from training.keye_tiny.world import HEIGHT, NAME, WIDTH, World

FAMILIES: tuple[Family, ...] = ("read", "read_small", "compute", "not_there", "named_tool")
ZOOM_BOX = (200, 120)
"""Width and height, in thousandths of a frame, of the box that the teacher zooms into."""
REWORDED = 0.85
"""Part of the training questions that the grammar of wordings asks; the rest are asked as the demo asks them."""
ASIDE = 0.4
"""Part of the requests to call a tool with something polite before them."""
OTHER_SYSTEMS = ("", "You are a helpful assistant.", "Answer briefly.", "You watch videos. Use the tools.")
FULL = Region(0, 0, WIDTH, HEIGHT)


class Episode:
    """One question about one video."""

    def __init__(
        self, rng: random.Random, family: Family, atlas: GlyphAtlas, *, heldout: bool = False, difficulty: float = 1.0
    ) -> None:
        self.rng, self.family, self.atlas = rng, family, atlas
        self.named: NamedCall | None = None
        self.called: list[tuple[str, dict[str, object]]] = []
        self.question, self.world = _draw(rng, family, atlas, heldout, difficulty)
        if family == "named_tool":
            self._wrap_in_call(heldout)
        elif not heldout and rng.random() < REWORDED:
            said = [questions.say_time(rng, time_s) for time_s in self.question.times_s]
            self.question = replace(self.question, text=wordings.reword(rng, self.question, said))
        self.tools = self._offer()
        source = Source(NAME, "video", "", "", WIDTH, HEIGHT, self.world.video.duration_s)
        system = rng.choice(OTHER_SYSTEMS) if not heldout and rng.random() < 0.08 else system_text()
        self.messages = [Message("system", (Text(system),))] if system else []
        self.messages.append(Message("user", (Text(task_text(self.question.text, [source])),)))
        self.answer: str | None = None

    # -- playing ---------------------------------------------------------------------------------------------------
    def sample(self, *, open_reply: bool) -> Sample:
        """The episode so far as token ids and pictures; with ``open_reply`` it ends where the model goes on."""
        return lay_out(
            self.family, self.messages, self.tools, self.world.shown, open_reply=open_reply, readings=self._readings()
        )

    def _readings(self) -> list[str]:
        """What the teacher has to read from pictures, in the order in which it says it."""
        if self.family == "not_there":
            return []
        if self.family == "compute":
            return [self.world.video.shot_at(time_s).board for time_s in self.question.times_s]
        return [self.question.answer]

    def submit(self, raw: str, *, shake: bool = False) -> bool:
        """Take the text of an assistant turn, run its calls, and say whether the episode has ended."""
        reply = parse_reply(raw)
        calls = tuple(ToolCall(f"c{index}", call.name, call.arguments) for index, call in enumerate(reply.calls))
        self.messages.append(Message("assistant", (Text(reply.text),), reply.reasoning, calls, raw=raw))
        if reply.malformed or not reply.calls:
            self.answer = reply.text or reply.reasoning
            return True
        for call, made in zip(reply.calls, calls, strict=True):
            self.messages.append(Message("tool", self._run(call, shake), tool_call_id=made.id))
        return False

    def right(self) -> bool:
        """Whether the answer, citations aside, is the expected one; for a named tool, whether it was called rightly."""
        if self.answer is None:
            return False
        said = strip_citations(self.answer).strip().rstrip(".").casefold()
        if self.named is not None:
            wanted = (self.named.spec.name, self.named.arguments(self.question.answer))
            return bool(self.called) and all(call == wanted for call in self.called) and said.startswith("done")
        if self.family == "not_there":
            return said.startswith("not there")
        return said == self.question.answer.casefold()

    # -- the teacher -----------------------------------------------------------------------------------------------
    def teach(self) -> str:
        """What the teacher says now."""
        turn = sum(message.role == "assistant" for message in self.messages)
        if turn == 0:
            return self._look()
        views = list(self.world.views)
        if not views:
            end = self.world.video.duration_s
            return speech.say("", f"Not there: {NAME} ends at {end:.1f} s.")
        return getattr(self, f"_teach_{self.family}")(turn, views)  # type: ignore[no-any-return]

    def _look(self) -> str:
        times = self.question.times_s
        clocks = [speech.clock_thought(found) for found in speech.CLOCK.finditer(self.question.text)]
        wanted = " and ".join(f"{time_s:g} s" for time_s in times)
        thought = " ".join([*clocks, f"Look at {wanted}."])
        calls: list[tuple[str, dict[str, object]]] = [
            ("clip_video", {"video": NAME, "start_s": speech.number(t), "end_s": speech.number(t), "max_frames": 1})
            for t in times
        ]
        return speech.call(thought, *calls)

    def _teach_read(self, turn: int, views: list[View]) -> str:
        return speech.say("", f"{self.question.answer} {self._cite(views[0])}")

    def _teach_not_there(self, turn: int, views: list[View]) -> str:
        time_s = self.question.times_s[0]
        about_sign = "small sign" in self.question.text
        what = "there is no small sign at" if about_sign else "the board is empty at"
        return speech.say("", f"Not there: {what} {time_s:g} s [{views[0].handle}]")

    def _teach_read_small(self, turn: int, views: list[View]) -> str:
        if turn == 1:
            sign = self.world.shown[views[0].handle].scene
            return speech.call(
                "Too small; zoom in.",
                ("zoom", {"view": views[0].handle, "box": zoom_box(sign_region(sign, 0, self.atlas))}),
            )
        return speech.say("", f"{self.question.answer} {self._cite(views[-1], sign=True)}")

    def _teach_compute(self, turn: int, views: list[View]) -> str:
        one, two = (self.world.video.shot_at(time_s).board for time_s in self.question.times_s)
        if turn == 1:
            return speech.call(
                f"{one} and {two}.", ("python", {"code": f"print({one} {self.question.operation} {two})"})
            )
        return speech.say("", f"{self.question.answer} {self._cite(views[0])} {self._cite(views[1])}")

    def _teach_named_tool(self, turn: int, views: list[View]) -> str:
        assert self.named is not None
        if turn == 1:
            reading = self.question.answer
            return speech.call(f"It is {reading}.", (self.named.spec.name, self.named.arguments(reading)))
        result = self.messages[-1].text
        return speech.say("", f"Done: {result} {self._cite(views[0])}")

    # -- parts -----------------------------------------------------------------------------------------------------
    def _run(self, call: ParsedCall, shake: bool) -> tuple[Part, ...]:
        try:
            if self.named is not None and call.name == self.named.spec.name:
                self.called.append((call.name, dict(call.arguments)))
                value = call.arguments.get(self.named.value_name, "")
                return (Text(self.named.reply.format(value=value)),)
            moved = Region(*(self.rng.uniform(-8, 8) for _ in range(4))) if shake else None
            return self.world.call(call.name, call.arguments, moved)
        except (ToolError, KeyError, TypeError, ValueError) as error:
            return (Text(f"Error: {error}"),)

    def _cite(self, view: View, *, sign: bool = False) -> str:
        scene = self.world.shown[view.handle].scene
        box = view.box_of(sign_region(scene, 0, self.atlas) if sign else text_region(scene, self.atlas))
        x0, y0, x1, y1 = (min(max(round(side / 10) * 10, 0), 1000) for side in box)
        return f"[{view.handle} {x0},{y0},{x1},{y1}]"

    def gold_region(self) -> Region | None:
        """Where the answer is to be seen, in source pixels; None for what is not there."""
        if self.family == "not_there":
            return None
        scene = self.world.video.scene_at(self.question.times_s[0])
        return sign_region(scene, 0, self.atlas) if self.family == "read_small" else text_region(scene, self.atlas)

    def _wrap_in_call(self, heldout: bool) -> None:
        numeric = self.question.answer.isdigit()
        self.named = sample_call(self.rng, numeric=numeric)
        kind = "number" if numeric else "word"
        said = questions.say_time(self.rng, self.question.times_s[0])
        what = self.rng.choice(
            (f"the {kind} at {said}", f"the {kind} on the board at {said}", f"the {kind} shown at {said}",
             f"the board's {kind} at {said}", f"what the board shows at {said}")
        )  # fmt: skip
        old = self.question
        text = self.named.ask.format(what=what)
        if not heldout and self.rng.random() < ASIDE:
            text = wordings.aside(self.rng, text)
        self.question = Question("named_tool", text, old.answer, old.start_s, old.end_s, old.times_s)

    def _offer(self) -> tuple[ToolSpec, ...]:
        needed = {"read_small": ["zoom"], "compute": ["python"]}.get(self.family, [])
        offered = {spec.name: spec for spec in builtin_specs()}
        optional = [name for name in offered if name not in ("clip_video", *needed)]
        if self.rng.random() < 0.4:
            for name in optional:
                if self.rng.random() < 0.5:
                    del offered[name]
        found = list(offered.values())
        if self.named is not None:
            found.append(self.named.spec)
        for _ in range(self.rng.choice((0, 0, 0, 1, 2))):
            extra = sample_distractor(self.rng)
            if all(extra.name != spec.name for spec in found):
                found.append(extra)
        if self.rng.random() < 0.5:
            self.rng.shuffle(found)
        return tuple(found)


def make(
    rng: random.Random, family: Family, atlas: GlyphAtlas, *, heldout: bool = False, difficulty: float = 1.0
) -> Sample:
    """A whole trajectory as the teacher plays it."""
    episode = Episode(rng, family, atlas, heldout=heldout, difficulty=difficulty)
    while not episode.submit(episode.teach(), shake=True):
        pass
    return episode.sample(open_reply=False)


def _draw(
    rng: random.Random, family: Family, atlas: GlyphAtlas, heldout: bool, difficulty: float
) -> tuple[Question, World]:
    while True:
        video = sample_video(
            rng, atlas, heldout=heldout, difficulty=difficulty, shots=rng.randint(3, 6),
            signs=True if family == "read_small" else None,
        )  # fmt: skip
        question = _question(rng, family, video, heldout)
        if question is not None:
            return question, World(video)


def _question(rng: random.Random, family: Family, video: BoardVideo, heldout: bool) -> Question | None:
    if family == "not_there" and rng.random() < 0.4:
        past = video.duration_s + rng.choice((1, 2, 5, 10, 30, 60, 100, 600)) * rng.uniform(0.5, 1.5)
        return questions.ask_past_end(rng, video, float(round(past) + 1), heldout=heldout)
    kinds = {"compute": ("number",), "read_small": ("number", "word", "empty")}.get(family, ("number", "word"))
    shots = [shot for shot in video.shots if shot.kind in kinds]
    if family == "read_small":
        shots = [shot for shot in shots if shot.sign]
    if family == "not_there":
        shots = [shot for shot in video.shots if shot.kind == "empty" or shot.sign is None]
    if not shots or (family == "compute" and len(shots) < 2):
        return None
    shot = rng.choice(shots)
    time_s = pick_time(rng, video, shot, heldout)
    if time_s is None:
        return None
    if family == "compute":
        other = rng.choice([candidate for candidate in shots if candidate is not shot])
        second_s = pick_time(rng, video, other, heldout)
        return None if second_s is None else questions.ask_compute(rng, video, time_s, second_s, heldout=heldout)
    if family == "not_there":
        return questions.ask_blank(rng, video, shot, time_s, heldout=heldout)
    ask = questions.ask_sign if family == "read_small" else questions.ask_read
    return ask(rng, video, shot, time_s, heldout=heldout)


def pick_time(rng: random.Random, video: BoardVideo, shot: Shot, heldout: bool) -> float | None:
    """A moment well inside a shot; whole seconds as a rule. Seconds that leave 3 on division by 7 are held out."""
    low, high = shot.start_s + 0.3, video.end_of(shot) - 0.3
    for _ in range(8):
        time_s = rng.uniform(low, high)
        time_s = float(round(time_s)) if rng.random() < 0.8 else round(time_s, 1)
        if low <= time_s <= high and (int(time_s) % 7 == 3) == heldout:
            return time_s
    return None


def zoom_box(region: Region) -> list[int]:
    """The box, in thousandths of a frame, that the teacher zooms into to read ink at ``region``."""
    wide, high = ZOOM_BOX
    middle_x = (region.x0 + region.x1) / 2 / WIDTH * 1000
    middle_y = (region.y0 + region.y1) / 2 / HEIGHT * 1000
    x0 = min(max(round((middle_x - wide / 2) / 10) * 10, 0), 1000 - wide)
    y0 = min(max(round((middle_y - high / 2) / 10) * 10, 0), 1000 - high)
    return [x0, y0, x0 + wide, y0 + high]
