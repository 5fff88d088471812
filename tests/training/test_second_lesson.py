"""The second lesson: its teacher is right, its rows fit, and evaluation's words, names and documents are held out."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest

from keyeloop.runtime.content import Message
from keyeloop.tools.demo_video import corpus
from keyeloop.tools.demo_video.glyphs import GlyphAtlas
from keyeloop.tools.demo_video.questions import Question
from keyeloop.tools.demo_video.record import ask
from keyeloop.tools.demo_video.scene import HELDOUT_STYLES
from keyeloop.tools.demo_video.timeline import BoardVideo, Shot, sample_video
from keyeloop.tools.search.index import DocumentIndex, search_texts
from training.keye_tiny import source
from training.keye_tiny.evaluate import _cites, _looked
from training.keye_tiny.sample import Kind
from training.keye_tiny.second.episode import Lesson
from training.keye_tiny.second.lesson import EVERY, SECOND, open_episode, teach
from training.keye_tiny.second.look_up import LookUp
from training.keye_tiny.second.source import LENGTHS, SecondSource, longer, open_source
from training.keye_tiny.second.videos import draw_video
from training.keye_tiny.second.when import When
from training.keye_tiny.second.whole import Whole, plan
from training.keye_tiny.second.wordings import FACT_HELDOUT, HELD_OUT, WHEN_HELDOUT, ask_fact, ask_when
from training.keye_tiny.supply import FRAME, FRAME_TOKENS, Buckets, Stock, small
from training.keye_tiny.trajectories import FAMILIES, Episode
from training.keye_tiny.world import World

ATLAS = GlyphAtlas.bundled()


def played(family: str, seed: int, *, heldout: bool) -> Lesson:
    episode = open_episode(random.Random(f"{family} {seed}"), family, ATLAS, heldout=heldout)
    assert isinstance(episode, Lesson) and episode.family == family
    while not episode.submit(episode.teach()):
        pass
    return episode


@pytest.mark.parametrize("heldout", [False, True])
@pytest.mark.parametrize("family", SECOND)
def test_the_teacher_is_right_looks_and_cites(family: str, heldout: bool) -> None:
    for seed in range(60):
        episode = played(family, seed, heldout=heldout)
        said = [message.raw for message in episode.messages if message.role == "assistant"]
        assert episode.right(), (episode.question, said)
        assert _looked(episode), (episode.question, said)
        assert episode.question.answer == "not there" or _cites(episode), (episode.question, said)
        assert len(said) <= (5 if family == "when" else 4)


@pytest.mark.parametrize("family", SECOND)
def test_a_wrong_answer_is_wrong(family: str) -> None:
    for seed in range(20):
        episode = played(family, seed, heldout=True)
        episode.answer = "Not there: nothing." if episode.question.answer != "not there" else "99.9 s"
        assert not episode.right()
    timed = next(one for one in (played("when", seed, heldout=True) for seed in range(9)) if one.question.times_s)
    for off_s, right in ((0.4, True), (0.6, False), (-0.6, False)):
        timed.answer = f"{timed.question.start_s + off_s:.1f} s [f1]"
        assert timed.right() is (right and timed.question.start_s + off_s >= 0)


@pytest.mark.parametrize(("family", "most"), [("look_up", 720), ("when", LENGTHS[-1]), ("whole", LENGTHS[-1])])
def test_rows_fit(family: str, most: int) -> None:
    lengths = [len(teach(random.Random(f"{family} {seed}"), family, ATLAS).ids) for seed in range(80)]
    assert sum(length > most for length in lengths) <= 4


@pytest.mark.parametrize("family", SECOND)
def test_what_is_read_is_weighed_as_read(family: str) -> None:
    read = [
        (teach(random.Random(f"{family} {seed}"), family, ATLAS).loss_kind == Kind.READING).sum() for seed in range(30)
    ]
    assert sum(count > 0 for count in read) >= 24


def test_evaluation_has_looks_that_training_has_not() -> None:
    for family in SECOND:
        for seed in range(10):
            seen = played(family, seed, heldout=False).world.video.look
            unseen = played(family, seed, heldout=True).world.video.look
            assert unseen.background.style in HELDOUT_STYLES and seen.background.style not in HELDOUT_STYLES
            assert unseen.board.run.font in ATLAS.choose(heldout=True)
            assert seen.board.run.font not in ATLAS.choose(heldout=True)


def test_training_asks_in_many_words_and_never_in_those_held_out() -> None:
    rng = random.Random(1)
    facts = [ask_fact(rng, "tower", "height", "0:17") for _ in range(1500)]
    times = [ask_when(rng, "4711") for _ in range(1500)]
    assert all("0:17" in text and re.search("height|tall|high", text, re.IGNORECASE) for text in facts)
    assert sum("tower" in text for text in facts) > 1100 and all("4711" in text for text in times)
    assert len(set(facts)) > 700 and len(set(times)) > 300
    assert not any(HELD_OUT.search(text) for text in (*facts, *times))
    assert all(HELD_OUT.search(wording) for wording in (*FACT_HELDOUT, *WHEN_HELDOUT))
    unseen = {ask_when(rng, "4711", heldout=True) for _ in range(60)}
    assert unseen == {wording.format(x="4711") for wording in WHEN_HELDOUT}


def test_things_of_the_bundled_documents_are_held_out() -> None:
    names, texts = set(corpus.bundled_things()), corpus.bundled_texts()
    for seed in range(40):
        fresh, kept = played("look_up", seed, heldout=False), played("look_up", seed, heldout=True)
        assert isinstance(fresh, LookUp) and isinstance(kept, LookUp)
        assert fresh.thing.name not in names and kept.texts == texts


def test_the_bundled_documents_are_what_their_seed_makes_and_are_found(tmp_path: Path) -> None:
    folder, texts = corpus.bundled_documents(), corpus.bundled_texts()
    assert {path.name: path.read_text() for path in folder.glob("*.txt")} == texts
    assert sum(map(len, texts.values())) < 300_000
    index = DocumentIndex(folder, tmp_path)
    for name, thing in list(corpus.bundled_things().items())[::12]:
        hits = index.search(name.upper())
        assert hits == search_texts(texts, name.upper())
        assert hits[0].path == thing.path and all(value in hits[0].snippet for value in thing.facts.values())


def test_the_source_draws_both_lessons_into_rows_of_their_length(tmp_path: Path) -> None:
    supply = SecondSource(ATLAS)
    drawn = [supply.make(random.Random(seed), 1.0).family for seed in range(150)]
    assert set(drawn) == set(EVERY) and 50 <= sum(family in SECOND for family in drawn) <= 100
    assert longer(Buckets()).main == (*Buckets().main, (1408, 65), (2048, 45))
    buckets = Buckets(
        main=((720, 40), (LENGTHS[0], 40), (LENGTHS[1], 2)), reader=(112, 2), frame_chunk=4, mixed_chunk=2
    )
    shard = Stock(supply, buckets, 3).main(1.0)
    assert shard.length == LENGTHS[1] and shard.frames is not None and shard.frames.count >= 2
    assert longer(small(16)).main[-2:] == ((1408, 6), (2048, 4))


def test_the_first_lesson_is_drawn_as_it_was() -> None:
    assert tuple(EVERY)[: len(FAMILIES)] == FAMILIES
    for family in FAMILIES:
        one = open_episode(random.Random("1"), family, ATLAS, heldout=True)
        two = Episode(random.Random("1"), family, ATLAS, heldout=True)
        assert one.question == two.question and one.messages == two.messages and one.tools == two.tools
    assert source.BoardSource.families == (*FAMILIES, "reader")
    assert isinstance(open_source(Path(str(corpus.bundled_documents().parent / "fonts.npz"))), SecondSource)


def test_when_is_read_frame_by_frame() -> None:
    episode = next(
        one for one in (played("when", seed, heldout=False) for seed in range(30)) if 33 < one.question.start_s < 59
    )
    spoken = [message for message in episode.messages if message.role == "assistant"]
    assert [len(message.tool_calls) for message in spoken] == [1, 1, 1, 0]
    assert all(thought(message).startswith("f") for message in spoken[1:])
    before_s = 4 * int((episode.question.start_s - 1e-6) // 4)
    assert thought(spoken[1]).endswith("Not yet.") and [len(call) for call in looks(episode)] == [8, 8, 7]
    assert thought(spoken[2]).endswith(f"Not at {before_s} s, at {before_s + 4} s.")


def looks(episode: Lesson) -> list[list[float]]:
    """The moments of every look."""
    calls = [call.arguments for message in episode.messages for call in message.tool_calls]
    return [np.linspace(call["start_s"], call["end_s"], call["max_frames"]).tolist() for call in calls]


class Given(When):
    """When a video is given, and the text that is asked for."""

    def __init__(self, video: BoardVideo, shot: Shot) -> None:
        self.given, self.shot = video, shot
        super().__init__(random.Random(1), ATLAS, heldout=True)

    def draw(self) -> tuple[Question, World]:
        self.wanted, end_s = self.shot.board, self.given.end_of(self.shot)
        asked = Question("when", "When?", f"{self.shot.start_s} s", self.shot.start_s, end_s, (end_s - 0.1,))
        return asked, World(self.given)


def test_when_finds_every_text_of_demo_videos() -> None:
    board = Path(str(corpus.bundled_documents().parent / "board.json"))
    read = [row for row in json.loads(board.read_text()) if row["family"] == "read"]
    look = draw_video(
        random.Random(1), ATLAS, [Shot(0.0, row["answer"], None) for row in read], 60.0, heldout=True, difficulty=1.0
    ).look
    bundled = BoardVideo(look, tuple(Shot(row["start_s"], row["answer"], None) for row in read), 60.0, 25.0)
    videos = [bundled, *(sample_video(random.Random(seed), ATLAS, duration_s=60.0, shots=10) for seed in range(12))]
    asked = 0
    for video in videos:
        for question in ask(random.Random(0), video, moments=True):
            if question.family != "when":
                continue
            episode = Given(video, video.shot_at(question.start_s + 0.5))
            assert f"{question.start_s:.1f} s" == question.answer and episode.wanted in question.text
            while not episode.submit(episode.teach()):
                pass
            assert episode.right() and episode.looked() and _cites(episode), (question, episode.answer)
            asked += 1
    assert asked >= 60


def test_videos_are_watched_whole_at_every_length() -> None:
    lengths, counts = [], []
    for seed in range(60):
        episode = SECOND["whole"](random.Random(seed), ATLAS)
        assert isinstance(episode, Whole)
        if episode.watch == "whole":
            shown = plan(episode.world.video, "whole")
            assert shown.each_tokens == FRAME_TOKENS and (shown.size.height, shown.size.width) == FRAME
            lengths.append(episode.world.video.duration_s)
            counts.append(len(shown.times_s))
    assert min(lengths) < 10 and any(50 < length < 100 for length in lengths) and max(lengths) > 1000
    assert max(counts) == 16 and all(count >= 13 for count, length in zip(counts, lengths, strict=True) if length >= 7)


def thought(message: Message) -> str:
    return re.split("</think>", message.raw or "")[0].strip()
