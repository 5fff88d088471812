"""Questions about a board video with their answers: families, wordings and ways to say a time."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from keyeloop.tools.demo_video.timeline import BoardVideo, Shot

Family = Literal["read", "read_small", "compute", "not_there", "named_tool", "look_up", "when", "whole"]
READING: tuple[Family, ...] = ("read", "read_small", "compute")

NUMBER = (
    "What number is on the board at {t}?",
    "Which number does the board show at {t}?",
    "Read the number on the board at {t}.",
    "At {t}, what number is written on the board?",
    "Tell me the number shown at {t}.",
    "The number on the board at {t}?",
    "Give me the number that the board shows at {t}.",
    "what number is up at {t}",
    "Find the number on the board {t} into the video.",
    "I need the number from the board at {t}.",
    "Which number can be seen at {t}?",
    "Look at {t}: which number is on the board?",
)
NUMBER_HELDOUT = (
    "At {t} the board shows a number. Which one?",
    "Can you read me the number on the board at {t}?",
    "Say which number stands on the board at {t}.",
)
WORD = (
    "What word is on the board at {t}?",
    "Which word does the board show at {t}?",
    "Read the word on the board at {t}.",
    "At {t}, what word is written on the board?",
    "Tell me the word shown at {t}.",
    "The word on the board at {t}?",
    "Give me the word that the board shows at {t}.",
    "what word is up at {t}",
    "Find the word on the board {t} into the video.",
    "I need the word from the board at {t}.",
    "What is written on the board at {t}?",
    "Look at {t}: which word is on the board?",
)
WORD_HELDOUT = (
    "At {t} the board shows a word. Which one?",
    "Can you read me the word on the board at {t}?",
    "Say which word stands on the board at {t}.",
)
SIGN = (
    "What does the small sign say at {t}?",
    "Read the small sign at {t}.",
    "At {t}, what is on the small sign?",
    "Tell me the text of the small sign at {t}.",
    "What is written on the small sign at {t}?",
    "The small sign at {t}: what does it show?",
    "Zoom in on the small sign at {t} and read it.",
    "I need the text on the small sign at {t}.",
    "which text is on the small sign {t} into the video",
    "Find the small sign at {t} and tell me what it says.",
)
SIGN_HELDOUT = (
    "There is a small sign at {t}. What is on it?",
    "Can you make out the small sign at {t}?",
    "Say what stands on the small sign at {t}.",
)
SUM = (
    "What is the sum of the numbers on the board at {t} and at {u}?",
    "Add the number at {t} to the number at {u}.",
    "Add up the numbers shown at {t} and {u}.",
    "How much are the numbers at {t} and {u} together?",
    "Take the numbers on the board at {t} and {u} and give me their sum.",
    "sum of the board numbers at {t} and {u}",
    "What do the numbers at {t} and at {u} add up to?",
)
SUM_HELDOUT = (
    "What total do the board's numbers at {t} and {u} make?",
    "Could you add the numbers on the board at {t} and {u}?",
)
DIFFERENCE = (
    "What is the number at {t} minus the number at {u}?",
    "Subtract the number at {u} from the number at {t}.",
    "Take the number on the board at {t} and subtract the one at {u}.",
    "number at {t} minus number at {u}",
)
DIFFERENCE_HELDOUT = ("From the board's number at {t}, subtract the number at {u}.",)
PRODUCT = (
    "What is the product of the numbers at {t} and at {u}?",
    "Multiply the number at {t} by the number at {u}.",
    "What is the number at {t} times the number at {u}?",
)
PRODUCT_HELDOUT = ("Could you multiply the numbers on the board at {t} and {u}?",)
OPERATIONS = {"+": (SUM, SUM_HELDOUT), "-": (DIFFERENCE, DIFFERENCE_HELDOUT), "*": (PRODUCT, PRODUCT_HELDOUT)}
OPENERS = ("", "", "", "", "Please answer: ", "In this video: ", "Hi! ", "Quick question. ")


@dataclass(frozen=True)
class Question:
    """A question with its answer and the span of the video that holds it."""

    family: Family
    text: str
    answer: str
    start_s: float
    end_s: float
    times_s: tuple[float, ...]
    """The moments asked about."""
    operation: str = ""
    """``+``, ``-`` or ``*`` for the family compute."""


def say_time(rng: random.Random, time_s: float) -> str:
    """A time as people write it: ``83 s``, ``01:23``, ``1:23:20``, ``83.5 seconds``, ``1 min 23 s``."""
    whole = int(time_s)
    minutes, rest = divmod(whole, 60)
    hours, part = divmod(minutes, 60)
    if time_s != whole:
        return rng.choice((f"{time_s:.1f} s", f"{time_s:.1f} seconds", f"{time_s:.1f}s"))
    clock = (
        f"{hours}:{part:02d}:{rest:02d}"
        if hours
        else rng.choice((f"{minutes:02d}:{rest:02d}", f"{minutes}:{rest:02d}"))
    )
    styles = [f"{whole} s", f"{whole} seconds", f"{whole}s", f"second {whole}", clock, clock, clock]
    if minutes and not hours:
        styles.append(f"{minutes} min {rest} s")
    return rng.choice(styles)


def ask_read(rng: random.Random, video: BoardVideo, shot: Shot, time_s: float, *, heldout: bool = False) -> Question:
    """Ask for the board's number or word at a moment of ``shot``."""
    seen, unseen = (NUMBER, NUMBER_HELDOUT) if shot.kind == "number" else (WORD, WORD_HELDOUT)
    return _about(rng, "read", unseen if heldout else seen, shot.board, video, shot, time_s, heldout)


def ask_sign(rng: random.Random, video: BoardVideo, shot: Shot, time_s: float, *, heldout: bool = False) -> Question:
    """Ask for the small sign's text at a moment of ``shot``."""
    return _about(rng, "read_small", SIGN_HELDOUT if heldout else SIGN, shot.sign or "", video, shot, time_s, heldout)


def ask_compute(
    rng: random.Random, video: BoardVideo, first_s: float, second_s: float, *, heldout: bool = False
) -> Question:
    """Ask for a sum, a difference or a product of the numbers at two moments."""
    operation = rng.choices(("+", "-", "*"), (5, 3, 2))[0]
    seen, unseen = OPERATIONS[operation]
    text = rng.choice(unseen if heldout else seen).format(t=say_time(rng, first_s), u=say_time(rng, second_s))
    one, two = int(video.shot_at(first_s).board), int(video.shot_at(second_s).board)
    answer = {"+": one + two, "-": one - two, "*": one * two}[operation]
    shots = sorted((video.shot_at(first_s), video.shot_at(second_s)), key=lambda shot: shot.start_s)
    text = _open(rng, text, heldout)
    span = (shots[0].start_s, video.end_of(shots[1]))
    return Question("compute", text, str(answer), *span, (first_s, second_s), operation)


def ask_past_end(rng: random.Random, video: BoardVideo, time_s: float, *, heldout: bool = False) -> Question:
    """Ask about a moment after the end."""
    wordings = (NUMBER_HELDOUT, WORD_HELDOUT, SIGN_HELDOUT) if heldout else (NUMBER, WORD, SIGN)
    text = _open(rng, rng.choice(rng.choice(wordings)).format(t=say_time(rng, time_s)), heldout)
    return Question("not_there", text, "not there", time_s, time_s, (time_s,))


def ask_blank(rng: random.Random, video: BoardVideo, shot: Shot, time_s: float, *, heldout: bool = False) -> Question:
    """Ask for what a shot does not show: the board's text when it is blank, else the missing small sign's."""
    if shot.kind == "empty":
        wordings = rng.choice((NUMBER_HELDOUT, WORD_HELDOUT) if heldout else (NUMBER, WORD))
    else:
        wordings = SIGN_HELDOUT if heldout else SIGN
    return _about(rng, "not_there", wordings, "not there", video, shot, time_s, heldout)


def _about(
    rng: random.Random,
    family: Family,
    wordings: tuple[str, ...],
    answer: str,
    video: BoardVideo,
    shot: Shot,
    time_s: float,
    heldout: bool,
) -> Question:
    text = _open(rng, rng.choice(wordings).format(t=say_time(rng, time_s)), heldout)
    return Question(family, text, answer, shot.start_s, video.end_of(shot), (time_s,))


def _open(rng: random.Random, text: str, heldout: bool) -> str:
    return text if heldout else rng.choice(OPENERS) + text
