"""Many ways to ask for a fact about the thing that a board names, and for the moment at which a text appears.

As in ``training.keye_tiny.wordings``, what evaluation holds out is not made here, and ``HELD_OUT`` knows it.
"""

from __future__ import annotations

import random
import re

from keyeloop.tools.demo_video.corpus import BUILT, COUNTED, HIGH, MADE, Property
from training.keye_tiny.wordings import aside, invented

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
POINTED = (
    "{when} the board {shows} {a_name}. {ask}", "the board {shows} {a_name} {when}. {ask}",
    "look at the board {when}. {ask}", "take the {kind} named {when}. {ask}", "{when}, see the board. {ask}",
    "I mean the {kind} on the board {when}. {ask}", "a {kind} is named {when}. {ask}",
    "we see {a_name} on the board {when}. {ask}", "go to {when}: {a_name} is on the board. {ask}",
    "on the board {when} is {a_name}. {ask}", "about the {kind} named {when}: {ask}", "{ask} I mean {thing}.",
    "{ask} The {kind} is the one named {when}.", "for {thing}: {ask}", "as for {thing}, {ask}",
    "{when} one reads {a_name} on the board. {ask}", "{a_name} is to be seen on the board {when}. {ask}",
    "{when} {a_name} is up on the board. {ask}",
    "you find {a_name} on the board {when}. {ask}", "{a_name} was put on the board {when}. {ask}",
    "there is a {kind} on the board {when}. {ask}", "{when} there is {a_name} on the board. {ask}",
    "on the board {when} there is a {kind}. {ask}", "there are letters on the board {when}. {ask}",
    "is there a {kind} on the board {when}? {ask}", "there we see {a_name} {when}. {ask}",
)  # fmt: skip
"""Two parts: where the thing is named, and what is asked of it. *There* must not make it a question of *where*."""
OF_IT = (
    "what is the {noun} of {it}?", "what is its {noun}?", "{verb} its {noun}{end}", "{verb} the {noun} of {it}{end}",
    "of {it}, {verb} the {noun}{end}", "the {noun} of {it}?", "{its} {noun}?", "{its} {noun} is what?", "{noun}?",
    "what {noun} does {it} have?", "which {noun} has {it}?", "for {it}, which is the {noun}?", "and the {noun}?",
    "for {it}, what is the {noun}?", "with {it}, what is the {noun}?", "about {it}: what is the {noun}?",
    "in the case of {it}, what is the {noun}?", "what, for {it}, is the {noun}?", "of {it}, which {noun}?",
    "now, what is the {noun} of {it}?", "of {it}: the {noun}?", "{verb}, of {it}, the {noun}{end}",
    "regarding {it}, the {noun} is what?", "{it}: what {noun}?", "on {it}, the {noun} would be what?",
    "of {it} I want the {noun}{end}", "what would be the {noun} of {it}?", "what {its} {noun} is: {verb} that{end}",
)  # fmt: skip
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
    if rng.random() < 0.5:
        return _pointed(rng, kind, noun, when, thing)
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


def _pointed(rng: random.Random, kind: str, noun: str, when: str, thing: str) -> str:
    """A question in two parts: ``The board names a tower at 83 s. Of it, what is the height?``"""
    it = rng.choice(("it", f"that {kind}", f"this {kind}", f"the {kind}", f"the said {kind}"))
    verb = rng.choice(TELL) if rng.random() < 0.6 else invented(rng)
    ask = rng.choice(OF_IT).format(
        noun=noun, it=it, verb=verb, end=rng.choice(ENDS), its="its" if it == "it" else f"{it}'s"
    )
    name = rng.choice(("a name", "a name", f"the name of a {kind}", f"a {kind}", f"a {kind}'s name", "some name"))
    shows = rng.choice(("shows", "has", "names", "displays", "reads", "gives", invented(rng)))
    ask = ask[0].upper() + ask[1:] if rng.random() < 0.8 else ask
    text = rng.choice(POINTED).format(kind=kind, when=when, thing=thing, shows=shows, a_name=name, ask=ask)
    text = rng.choice(("", "", "", "", "Hello, ", "So, ", f"{invented(rng).capitalize()}: ")) + text
    return text[0].upper() + text[1:]


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
    forms: tuple[str, ...] = (
        f"when does {x} {seen}?", f"when does {x} {seen}?", f"when does {x} {seen}?", f"when is {x} {be}?",
        f"at what {time} does {x} {seen}?", f"at which {time} does {x} {seen}?", f"when does the board first show {x}?",
        f"when does the board show {x} for the first time?", f"at what {time} is {x} {be}?",
        f"{rng.choice(TELL)} the {time} when {x} {shown}{rng.choice(ENDS)}",
        f"{rng.choice(TELL)} when {x} {shown}{rng.choice(ENDS)}",
        f"{rng.choice(TELL)} the {time} at which {x} {shown}{rng.choice(ENDS)}",
        f"the {time} {x} {shown}?", f"{x}: when does it {seen}?", f"{x} {shown} when?", f"since when is {x} shown?",
        f"how far into the video does {x} {seen}?", f"how many seconds in does {x} {seen}?",
    )  # fmt: skip
    if rng.random() < 0.5:
        forms = _odd(rng, x, time)
    text = rng.choice(("", "", "", "", "Quick question: ", "In this video: ", "Hello, ", "So, ")) + rng.choice(forms)
    return text[0].upper() + text[1:] if rng.random() < 0.8 and not text.startswith(x) else text


def _odd(rng: random.Random, x: str, time: str) -> tuple[str, ...]:
    """Less usual wordings, some with words that mean nothing: what is asked for is the text, wherever it stands."""
    noun = rng.choice(
        ("arrival", "start", "entrance", "onset", "debut", "first sight", "first showing", "first frame", "first time",
         "beginning", "first second", f"first {invented(rng)}", invented(rng))
    )  # fmt: skip
    verb = rng.choice(TELL) if rng.random() < 0.6 else invented(rng)
    done = rng.choice(
        ("arrives", "enters", "pops up", "starts", "begins", "is put up", "is there", f"{invented(rng)}s")
    )
    end = rng.choice(ENDS)
    return (
        f"when is the {noun} of {x}?", f"when is the {noun} of {x}?", f"what is the {time} of the {noun} of {x}?",
        f"{verb} the {noun} of {x}{end}", f"{verb} the {noun} of {x} on the board{end}", f"the {noun} of {x}?",
        f"{verb} the {time} when {x} {done}{end}", f"{verb} the {time} when {x} {done} on the board{end}",
        f"{verb} when {x} {done}{end}", f"{verb} the {time} where {x} {done}{end}", f"at which {time} {done} {x}?",
        f"when {done} {x}?", f"is {x} on the board, and from when on?", f"from what {time} on does the board have {x}?",
        f"from when on is {x} on the board?", f"starting when is {x} to be seen?", f"{x} is on the board from when on?",
        f"{x} {done} at what {time}?", f"{x} {done} when?", f"for {x}, {verb} the {time} it {done}{end}",
        f"the board {rng.choice(('has', 'shows', 'gets', invented(rng) + 's'))} {x}: since when?",
        f"do you know when {x} {done}?", f"will you {verb} the {time} that {x} {done}?", f"{x}: {verb} its {noun}{end}",
        f"as of which {time} is {x} on the board?", f"until which {time} is {x} not yet on the board?",
    )  # fmt: skip
