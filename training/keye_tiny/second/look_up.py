"""Look up: the board names a thing, a document tells the fact that is asked for."""

from __future__ import annotations

from functools import lru_cache

from keyeloop.agent.prompt import task_text
from keyeloop.model_backend.toolcalls import ParsedCall
from keyeloop.runtime.content import Part, Text
from keyeloop.runtime.evidence import Region
from keyeloop.tools.demo_video import corpus, questions
from keyeloop.tools.demo_video.corpus import Thing
from keyeloop.tools.demo_video.questions import Question
from keyeloop.tools.demo_video.timeline import BoardVideo, Shot
from keyeloop.tools.search.index import search_texts
from keyeloop.tools.search.wording import hits_text
from training.keye_tiny import speech
from training.keye_tiny.second import wordings
from training.keye_tiny.second.episode import Lesson
from training.keye_tiny.second.videos import draw_cuts, draw_text, draw_video
from training.keye_tiny.trajectories import pick_time
from training.keye_tiny.world import World

UNKNOWN = 0.07
"""Part of the questions about a thing of which no document tells."""


@lru_cache(maxsize=1)
def bundled() -> tuple[dict[str, Thing], dict[str, str]]:
    """The things that evaluation asks about, and all documents that ship."""
    return corpus.bundled_things(), corpus.bundled_texts()


class LookUp(Lesson):
    """``How tall is the tower named on the board at 83 s?``"""

    needed = ("web_search",)
    distractors = (0, 0, 1)

    def draw(self) -> tuple[Question, World]:
        while True:
            thing = self._thing()
            video, shot = self._video(thing.name)
            time_s = pick_time(self.rng, video, shot, self.heldout)
            if time_s is None:
                continue
            self.thing, self.texts = thing, self._texts(thing)
            asked = self.rng.choice(list(thing.facts))
            self.noun = wordings.noun_of(asked, thing.kind)
            known = thing.path in self.texts
            text = wordings.ask_fact(
                self.rng, thing.kind, asked, questions.say_time(self.rng, time_s), heldout=self.heldout
            )
            answer = thing.facts[asked] if known else "not there"
            span = (shot.start_s, video.end_of(shot))
            return Question("look_up", text, answer, *span, (time_s,)), World(video)

    def opening(self) -> tuple[Part, ...]:
        return (Text(task_text(self.question.text, [self.source])),)

    def use(self, call: ParsedCall, shake: Region | None) -> tuple[Part, ...]:
        if call.name == "web_search":
            query = str(call.arguments["query"])
            return (Text(hits_text(query, search_texts(self.texts, query))),)
        return super().use(call, shake)

    def teach(self) -> str:
        turn, name = self.turns(), self.world.video.shot_at(self.question.times_s[0]).board
        if turn == 0:
            return self._look()
        if turn == 1:
            return speech.call(f"It is {name}.", ("web_search", {"query": name}))
        cited = self._cite(next(iter(self.world.views)))
        wanted = f"Its {self.noun}."
        if self.question.answer == "not there":
            return speech.say(wanted, f"Not there: no document names {name} {cited}")
        return speech.say(wanted, f"{self.question.answer} {cited}")

    def right(self) -> bool:
        if self.question.answer != "not there":
            return super().right()
        return (self.answer or "").casefold().startswith("not there")

    def looked(self) -> bool:
        wanted = self.world.video.frame_time(self.question.times_s[0])
        return any(view.time_s is not None and abs(view.time_s - wanted) < 1e-6 for view in self.world.views)

    def _readings(self) -> list[str]:
        name = self.world.video.shot_at(self.question.times_s[0]).board
        return [name, self.noun] + [self.question.answer] * (self.question.answer != "not there")

    def _thing(self) -> Thing:
        if self.heldout:
            things, _ = bundled()
            thing = self.rng.choice(list(things.values()))
            if self.rng.random() >= UNKNOWN:
                return thing
        while True:
            name = corpus.made_up_name(self.rng)
            if name not in bundled()[0]:
                return corpus.sample_thing(self.rng, name, facts=self.rng.choice((1, 2, 2, 3)))

    def _texts(self, thing: Thing) -> dict[str, str]:
        """The documents of this episode: those that ship for evaluation, fresh ones for training."""
        if self.heldout:
            return bundled()[1]
        texts: dict[str, str] = {}
        if self.rng.random() >= UNKNOWN:
            texts[thing.path] = corpus.document(self.rng, thing)
        for _ in range(self.rng.choice((0, 0, 1)) if texts else 1):
            other = corpus.sample_thing(self.rng, self._other_name(thing.name))
            named = bool(texts)
            texts[other.path] = corpus.mention(self.rng, other, thing) if named else corpus.document(self.rng, other)
        return texts

    def _other_name(self, name: str) -> str:
        while (other := corpus.made_up_name(self.rng)) == name:
            pass
        return other

    def _video(self, name: str) -> tuple[BoardVideo, Shot]:
        """A video that shows the name once, in whatever letters, among other texts."""
        rng = self.rng
        count, length_s = rng.randint(2, 5), float(round(20 * 200 ** rng.random()))
        shown = rng.choice((name, name, name.upper(), name.lower()))
        taken, place, signed = [shown], rng.randrange(count), rng.random() < 0.3
        shots: list[Shot] = []
        for index, start_s in enumerate(draw_cuts(rng, length_s, count, 0.6 * length_s / count)):
            text = shown if index == place else draw_text(rng, taken)
            taken.append(text or shown)
            shots.append(Shot(start_s, text, draw_text(rng, taken, blank=0.0) if signed else None))
        video = draw_video(rng, self.atlas, shots, length_s, heldout=self.heldout, difficulty=self.difficulty)
        return video, shots[place]
