"""What the families of the second lesson have in common: an episode whose teacher goes by more than one look."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from keyeloop.agent.prompt import system_text
from keyeloop.model_backend.toolcalls import ParsedCall
from keyeloop.runtime.content import Message, Part, Text, ToolSpec
from keyeloop.runtime.errors import ToolError
from keyeloop.runtime.evidence import Region, Source, View
from keyeloop.tools.demo_video.glyphs import GlyphAtlas
from keyeloop.tools.demo_video.questions import Question
from keyeloop.tools.demo_video.scene import text_region
from training.keye_tiny.builtin import builtin_specs
from training.keye_tiny.named_tools import sample_distractor
from training.keye_tiny.trajectories import OTHER_SYSTEMS, Episode
from training.keye_tiny.world import HEIGHT, NAME, WIDTH, World

NOTHING = "-"
"""How the teacher says that a board is blank."""


class Lesson(Episode):
    """One question about one video, drawn by its family; played as the episodes of the first lesson are."""

    needed: ClassVar[Sequence[str]] = ()
    """Tools that are always offered, besides ``clip_video``."""
    distractors: ClassVar[Sequence[int]] = (0, 0, 0, 1)

    def __init__(
        self, rng: random.Random, atlas: GlyphAtlas, *, heldout: bool = False, difficulty: float = 1.0
    ) -> None:
        self.rng, self.atlas, self.heldout, self.difficulty = rng, atlas, heldout, difficulty
        self.named, self.called, self.answer = None, [], None
        self.question, self.world = self.draw()
        self.family: Any = self.question.family
        self.tools = self._offer()
        system = rng.choice(OTHER_SYSTEMS) if not heldout and rng.random() < 0.08 else system_text()
        self.messages = [Message("system", (Text(system),))] if system else []
        self.messages.append(Message("user", self.opening()))

    @property
    def source(self) -> Source:
        """The video as it is declared."""
        return Source(NAME, "video", "", "", WIDTH, HEIGHT, self.world.video.duration_s)

    @abstractmethod
    def draw(self) -> tuple[Question, World]:
        """A question and the world it is asked in."""

    @abstractmethod
    def opening(self) -> tuple[Part, ...]:
        """The first user turn."""

    @abstractmethod
    def looked(self) -> bool:
        """Whether what was looked at holds the answer."""

    def _offer(self) -> tuple[ToolSpec, ...]:
        offered = {spec.name: spec for spec in builtin_specs()}
        if self.rng.random() < 0.4:
            for name in [name for name in offered if name not in ("clip_video", *self.needed)]:
                if self.rng.random() < 0.5:
                    del offered[name]
        found = list(offered.values())
        for _ in range(self.rng.choice(self.distractors)):
            extra = sample_distractor(self.rng)
            if all(extra.name != spec.name for spec in found):
                found.append(extra)
        if self.rng.random() < 0.5:
            self.rng.shuffle(found)
        return tuple(found)

    def _run(self, call: ParsedCall, shake: bool) -> tuple[Part, ...]:
        moved = Region(*(self.rng.uniform(-8, 8) for _ in range(4))) if shake else None
        try:
            return self.use(call, moved)
        except (ToolError, KeyError, TypeError, ValueError) as error:
            return (Text(f"Error: {error}"),)

    def use(self, call: ParsedCall, shake: Region | None) -> tuple[Part, ...]:
        """Answer a call."""
        return self.world.call(call.name, call.arguments, shake)

    def turns(self) -> int:
        """How often the assistant has spoken."""
        return sum(message.role == "assistant" for message in self.messages)

    def board(self, view: View) -> str:
        """What the board shows in a view."""
        return self.world.shown[view.handle].scene.board.run.text

    def said_board(self, view: View) -> str:
        """The same as the teacher says it."""
        return self.board(view) or NOTHING

    def gold_region(self) -> Region | None:
        """Where the answer is to be seen, in source pixels; None for what is not there."""
        if not self.question.times_s:
            return None
        return text_region(self.world.video.scene_at(self.question.times_s[0]), self.atlas)
