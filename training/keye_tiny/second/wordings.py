"""Many ways to ask for a fact about the thing that a board names, and for the moment at which a text appears.

As in ``training.keye_tiny.wordings``, what evaluation holds out is not made here, and ``HELD_OUT`` knows it.
"""

from __future__ import annotations

import random
import re

from keyeloop.tools.demo_video.corpus import BUILT, COUNTED, HIGH, MADE, Property
from training.keye_tiny.wordings import aside

HELD_OUT = re.compile(
    r"\bcan you\b|\bstands\b|\blook up\b|\bappearance\b|\bcomes up\b|\bfrom which\b|\bthere is a name\b", re.IGNORECASE
)
FACT_HELDOUT = (
    "There is a name on the board at {t}. Of that {kind}, what is the {noun}?",
    "Can you look up the {noun} of the {kind} whose name stands on the board at {t}?",
    "At {t} the board has a name: look up the {noun} of this {kind}.",
)
WHEN_HELDOUT = (
    "From which second on is {x} on the board?",
    "Can you find the moment when {x} comes up on the board?",
    "When is the first appearance of {x}?",
)
NOUNS: dict[Property, tuple[str, ...]] = {
    "height": ("height",), "length": ("length",), "depth": ("depth",), "weight": ("weight",),
    "year": ("year",), "place": ("place", "location"), "count": ("number",),
}  # fmt: skip
NAMED = (
    "the {kind} named on the board {when}", "the {kind} named on the board {when}", "the {kind} on the board {when}",
    "the {kind} that the board names {when}", "the {kind} whose name is on the board {when}",
    "the {kind} shown by name {when}", "the {kind} whose name the board shows {when}",
    "the {kind} written on the board {when}", "the {kind} that is named {when}", "the {kind} the board names {when}",
    "the {kind} called what the board says {when}",
)  # fmt: skip
ENDS = ("", "", ".", ".", "?", "!", " please.", ", please", ", thanks.", " for me.", " now.")
TELL = (
    "tell me,find,give me,name,find out,get,fetch,let me know,work out,state,report,search for,check,determine,"
    "look for,I need,I want,I would like to know,I want to know"
).split(",")


def ask_fact(rng: random.Random, kind: str, asked: Property, said: str, *, heldout: bool = False) -> str:
    """A question for a fact about the thing of ``kind`` that the board names at the moment ``said``."""
    if heldout:
        return rng.choice(FACT_HELDOUT).format(t=said, kind=kind, noun=noun_of(asked, kind))
    while True:
        text = _fact(rng, kind, asked, said)
        if not HELD_OUT.search(text):
            return text


def ask_when(rng: random.Random, text: str, *, heldout: bool = False) -> str:
    """A question for the moment at which the board first shows ``text``."""
    if heldout:
        return rng.choice(WHEN_HELDOUT).format(x=text)
    while True:
        asked = _when(rng, text)
        if not HELD_OUT.search(asked.replace(text, "")):
            return asked


def noun_of(asked: Property, kind: str) -> str:
    """What is asked for, as a noun: ``height``, ``year of building``, ``number of rooms``."""
    if asked == "year":
        return {BUILT: "year of building"}.get(MADE.get(kind, BUILT), f"year it was {MADE.get(kind)}")
    if asked == "count":
        return f"number of {COUNTED[kind]}"
    return NOUNS[asked][0]


def _fact(rng: random.Random, kind: str, asked: Property, said: str) -> str:
    when = rng.choice(
        (f"at {said}", f"at {said}", f"at {said}", f"at {said}", f"{said} into the video", f"at time {said}",
         f"at the {said} mark", f"when the video is at {said}", f"({said})")
    )  # fmt: skip
    thing = rng.choice(NAMED).format(kind=kind, when=when)
    direct = _direct(asked, kind)
    noun = rng.choice((noun_of(asked, kind), *NOUNS[asked][: 2 if asked == "place" else 0]))
    form = rng.randrange(8)
    if form < 3:
        text = rng.choice(direct).format(x=thing) + rng.choice(("?", "?", "?", ""))
    elif form == 3:
        text = f"what is the {noun} of {thing}?"
    elif form == 4:
        text = f"the {noun} of {thing}{rng.choice(('?', '', ', please', ': what is it?'))}"
    elif form == 5:
        opening = f"{when}, the board names a {kind}" if rng.random() < 0.5 else f"the board names a {kind} {when}"
        short = rng.choice(direct).format(x=rng.choice(("it", f"that {kind}", f"this {kind}")))
        text = f"{opening}{rng.choice(('. ', ': ', '; ', ' - '))}{short}?"
    else:
        text = f"{rng.choice(TELL)} the {noun} of {thing}{rng.choice(ENDS)}"
        return aside(rng, text[0].upper() + text[1:])
    text = rng.choice(("", "", "", "Quick question: ", "In this video: ", "Hello, ", "So, ", "Please: ")) + text
    return text[0].upper() + text[1:] if rng.random() < 0.8 else text


def _direct(asked: Property, kind: str) -> tuple[str, ...]:
    made = MADE.get(kind, BUILT)
    return {
        "height": ("how high is {x}", "how high is {x}") if kind in HIGH else ("how tall is {x}", "how high is {x}"),
        "length": ("how long is {x}", "what length does {x} have"),
        "depth": ("how deep is {x}", "what depth does {x} have"),
        "weight": ("how heavy is {x}", "how much does {x} weigh", "what does {x} weigh"),
        "year": (f"when was {{x}} {made}", f"in which year was {{x}} {made}", f"in what year was {{x}} {made}"),
        "place": ("where is {x}", "in or near which place is {x}", "what place is {x} at"),
        "count": (f"how many {COUNTED.get(kind, 'parts')} does {{x}} have", f"{{x}} has how many {COUNTED.get(kind)}"),
    }[asked]


def _when(rng: random.Random, x: str) -> str:
    x = rng.choice((x, x, x, f'"{x}"', f"the {'number' if x.isdigit() else 'word'} {x}"))
    seen = rng.choice(
        ("appear", "first appear", "show", "first show", "appear on the board", "first appear on the board", "begin",
         "turn up", "first turn up", "get shown", "become visible", "show up", "first show up")
    )  # fmt: skip
    shown = rng.choice(
        ("appears", "first appears", "is first shown", "is shown first", "shows up", "turns up", "becomes visible",
         "is first on the board", "is on the board for the first time", "can first be seen", "is first to be seen")
    )  # fmt: skip
    time = rng.choice(("time", "second", "point", "moment"))
    be = rng.choice(
        ("first shown", "first seen", "shown first", "first on the board", "on the board for the first time")
    )
    forms = (
        f"when does {x} {seen}?", f"when does {x} {seen}?", f"when does {x} {seen}?", f"when is {x} {be}?",
        f"at what {time} does {x} {seen}?", f"at which {time} does {x} {seen}?", f"when does the board first show {x}?",
        f"when does the board show {x} for the first time?", f"at what {time} is {x} {be}?",
        f"{rng.choice(TELL)} the {time} when {x} {shown}{rng.choice(ENDS)}",
        f"{rng.choice(TELL)} when {x} {shown}{rng.choice(ENDS)}",
        f"{rng.choice(TELL)} the {time} at which {x} {shown}{rng.choice(ENDS)}",
        f"the {time} {x} {shown}?", f"{x}: when does it {seen}?", f"{x} {shown} when?", f"since when is {x} shown?",
        f"how far into the video does {x} {seen}?", f"how many seconds in does {x} {seen}?",
    )  # fmt: skip
    text = rng.choice(("", "", "", "", "Quick question: ", "In this video: ", "Hello, ", "So, ")) + rng.choice(forms)
    return text[0].upper() + text[1:] if rng.random() < 0.8 and not text.startswith(x) else text
