"""Many ways to ask one thing: a small grammar of questions, so that the model learns what is asked and not a sentence.

The wordings that evaluation holds out are not made here; ``HELD_OUT`` lists what sets them apart. Invented words stand
in for verbs and greetings now and then: whatever a request is padded with, it is a question unless it names a tool.
"""

from __future__ import annotations

import random
import re
from typing import Literal

from keyeloop.tools.demo_video.questions import Question

Kind = Literal["number", "word", "sign", "+", "-", "*"]

HELD_OUT = re.compile(
    r"\bcan you\b|\bcould you\b|\bsay\b|\bstands\b|make out|which one|what is on it|there is a small sign|total do\b|"
    r"the board's numbers|from the board's number",
    re.IGNORECASE,
)
VERBS = (
    "read,read out,read off,tell me,give me,show me,name,find,state,spell out,look up,check,identify,determine,get,"
    "fetch,pick out,figure out,see,quote,recite,let me know,let me have,type out,transcribe,extract,provide,return,"
    "output,look at,recognise,decipher,work out,bring me,hand me,write down,repeat,answer with,list"
).split(",")
WISHES = (
    "I need {x}", "I want {x}", "I'd like {x}", "I would like to know {x}", "I want to know {x}", "I must know {x}",
    "I am looking for {x}", "I am after {x}", "I wonder about {x}", "My question is about {x}", "All I need is {x}",
    "It is about {x}", "Do you know {x}", "Do you see {x}", "Are you able to read {x}", "What about {x}",
    "How about {x}",     "What would {x} be", "What might {x} be", "What was {x}", "What's {x}", "What is {x}",
)  # fmt: skip
ASIDES = (
    "", "", "", "", "", "Please ", "please ", "Hi! ", "Hello, ", "Quick question. ", "Please answer: ", "OK, ", "Now, ",
    "In this video: ", "Would you ", "Will you ", "Are you able to ", "Do me a favour and ", "I'd like you to ",
    "Try to ", "Help me, ", "Kindly ", "Would you please ", "You should ", "Go and ", "Tell me: ", "So, ", "Question: ",
)  # fmt: skip
REQUESTS = (
    "{Verb} {thing} {when}{end}", "{Verb} {thing} {when}{end}", "{Verb} {thing} {when}{end}",
    "{which} {noun} {shown} {when}?", "{which} {noun} does the {place} {show} {when}?",
)  # fmt: skip
STATEMENTS = (
    "{when}, {verb} {thing}{end}", "{when}, {which} {noun} {shown}?", "{thing} {when}{mark}",
    "{thing} {when}: what is it?", "{thing} {when}, please.", "{thing}, {time}",
    "the {place} {shows} a {noun} {when}{then}", "{when} the {place} {shows} a {noun}{then}",
    "{when} a {noun} {shown}{then}", "{go} to {time}{and} {verb} {thing}{end}",
    "the {place} {when}: what does it {show}?", "the {place} {when}: {which} {noun}?", "the {place} {when}: {verb} it.",
    "what is {written} on the {place} {when}?", "{see} {a} {when}{then}",
)  # fmt: skip
ENDS = ("", "", ".", ".", "?", "!", " please.", ", please", ", thanks.", " for me.", " for me?", " now.", " in it.")
LETTERS = ("bcdfghjklmnprstvwz", "aeiou")


def reword(rng: random.Random, question: Question, times: list[str]) -> str:
    """Another wording of ``question``; ``times`` are its moments as they are to be said."""
    return say(rng, kind_of(question), times)


def kind_of(question: Question) -> Kind:
    """What a question asks for."""
    if question.operation == "+" or question.operation == "-" or question.operation == "*":
        return question.operation  # type: ignore[return-value]
    text = question.text
    if "small sign" in text:
        return "sign"
    return "word" if re.search(r"\bword\b|What is written", text) else "number"


def say(rng: random.Random, kind: Kind, times: list[str]) -> str:
    """A question of ``kind`` about one moment, or about two for a sum, a difference or a product."""
    while True:
        text = _pair(rng, kind, *times) if kind in ("+", "-", "*") else _one(rng, kind, times[0])
        if rng.random() < 0.08:
            text = f"{invented(rng).capitalize()} {invented(rng)}{rng.choice('.,!:')} {text}"
        if not HELD_OUT.search(text):
            return text


def aside(rng: random.Random, text: str) -> str:
    """A request with something polite before it, or nothing."""
    before = rng.choice(ASIDES)
    return before + (text[0].lower() + text[1:] if before and before[-2] not in ".!:?" else text)


def _one(rng: random.Random, kind: str, time: str) -> str:
    noun, place = ("text", "small sign") if kind == "sign" else (kind, "board")
    verb = rng.choice(VERBS) if rng.random() < 0.75 else invented(rng)
    fields = {
        "verb": verb, "Verb": verb.capitalize(), "thing": _thing(rng, kind), "when": _when(rng, time), "time": time,
        "noun": noun, "place": place, "shown": _shown(rng, place), "then": _then(rng, verb), "end": rng.choice(ENDS),
        "which": rng.choice(("what", "which")), "shows": rng.choice(("shows", "has", "displays", "carries")),
        "show": rng.choice(("show", "have", "display", "carry")), "go": rng.choice(("Look", "Go", "Jump", "Turn")),
        "and": rng.choice((" and", ", then", "; now", ":")), "see": rng.choice(("there is", "I see", "we see")),
        "a": "the small sign" if kind == "sign" else f"a {noun} on the board",
        "written": rng.choice(("written", "printed", "to be read", "shown")), "mark": rng.choice(("?", ".", "")),
    }  # fmt: skip
    form = rng.choice(REQUESTS if rng.random() < 0.3 else STATEMENTS)
    text = form.format(**fields) if rng.random() < 0.85 else rng.choice(WISHES).format(
        x=f"{fields['thing']} {fields['when']}"
    ) + str(fields["mark"])  # fmt: skip
    text = aside(rng, text) if form in REQUESTS else text[0].upper() + text[1:]
    return text if kind != "sign" or "small sign" in text else f"About the small sign: {text}"


def _then(rng: random.Random, verb: str) -> str:
    return rng.choice(
        (". What is it?", f". {verb.capitalize()} it.", "; which?", f"; {verb} it, please", ". What does it read?",
         ". What do you read?", f" that I want you to {verb}.", ". Please read it.", ": what?", " - what is it?")
    )  # fmt: skip


def _shown(rng: random.Random, place: str) -> str:
    return rng.choice(
        (f"is on the {place}", f"is written on the {place}", f"appears on the {place}", f"can be seen on the {place}",
         f"is shown on the {place}", f"is up on the {place}", f"does one see on the {place}", f"is the {place} showing")
    )  # fmt: skip


def _thing(rng: random.Random, kind: str) -> str:
    if kind == "sign":
        what = rng.choice(("text", "text", "words", "writing", "content", "inscription"))
        return rng.choice(
            (f"the {what} of the small sign", f"the {what} on the small sign", "the small sign", "the small sign",
             f"the small sign's {what}", "what the small sign shows", "what is on the small sign",
             "what the small sign reads", "what is written on the small sign", "what appears on the small sign",
             "what one sees on the small sign", "what the small sign has")
        )  # fmt: skip
    return rng.choice(
        (f"the {kind} on the board", f"the {kind} on the board", f"the board's {kind}",
         f"the {kind} that the board shows",
         f"the {kind} written on the board", f"the {kind} shown", f"the {kind}", f"which {kind} is on the board",
         f"which {kind} appears on the board", f"which {kind} one sees on the board", f"what {kind} the board shows",
         f"the {kind} the board has", f"what {kind} is on the board", f"which {kind} the board has")
    )  # fmt: skip


def _when(rng: random.Random, time: str) -> str:
    return rng.choice(
        (f"at {time}", f"at {time}", f"at {time}", f"at {time}", f"{time} into the video", f"at time {time}",
         f"at the {time} mark", f"when the video is at {time}", f"exactly at {time}", f"({time})")
    )  # fmt: skip


def _pair(rng: random.Random, kind: str, one: str, two: str) -> str:
    both, first, second = _numbers(rng, one, two), _number(rng, one), _number(rng, two)
    result = {"+": ("sum", "total"), "-": ("difference",), "*": ("product",)}[kind]
    name = rng.choice(result)
    forms: dict[str, tuple[str, ...]] = {
        "+": (
            f"Add {both}", f"Add up {both}", f"Add together {both}", f"Sum {both}", f"Sum up {both}", f"Total {both}",
            f"Add {first} to {second}", f"Add {first} and {second}", f"Compute {first} plus {second}",
            f"What is {first} plus {second}", f"{first} plus {second}", f"{first} + {second}",
            f"How much are {both} together", f"How much do {both} come to", f"What do {both} add up to",
            f"What do {both} make together", f"What {name} do {both} give", f"What {name} comes from {both}",
            f"Which {name} results when {both} are added", f"Take {both} and add them",
        ),
        "-": (
            f"Subtract {second} from {first}", f"{first} minus {second}", f"{first} - {second}",
            f"What is {first} minus {second}", f"Take {first} and subtract {second}",
            f"Take {second} away from {first}",
            f"Start with {first} and subtract {second}", f"From {first}, take away {second}",
            f"From {first} take {second} away", f"How much is {first} less {second}", f"Deduct {second} from {first}",
            f"Compute {first} minus {second}", f"What remains of {first} after subtracting {second}",
            f"Out of {first}, subtract {second}", f"Reduce {first} by {second}", f"From {first} subtract {second}",
        ),
        "*": (
            f"Multiply {both}", f"Multiply {first} by {second}", f"Multiply {first} with {second}",
            f"{first} times {second}", f"What is {first} times {second}", f"Compute {first} times {second}",
            f"What do {both} give when multiplied", f"Take {both} and multiply them", f"{first} * {second}",
            f"How much is {first} times {second}", f"Multiply together {both}",
        ),
    }  # fmt: skip
    forms[kind] += (
        f"What is the {name} of {both}", f"The {name} of {both}", f"I need the {name} of {both}",
        f"{both}: what is their {name}", f"Take {both} and give me their {name}", f"{name} of {both}",
    )  # fmt: skip
    text = rng.choice(forms[kind])
    if rng.random() < 0.6:
        text = text[0].upper() + text[1:]
    if text.split()[0] in ("What", "How", "Which"):
        return f"{rng.choice(('', '', '', 'Quick question. ', 'Hi! ', 'Please answer: ', 'So, '))}{text}?"
    return aside(rng, text) + rng.choice(ENDS)


def _numbers(rng: random.Random, one: str, two: str) -> str:
    a, b = (one, two)
    return rng.choice(
        (f"the numbers at {a} and {b}", f"the numbers at {a} and at {b}", f"the numbers on the board at {a} and {b}",
         f"the numbers on the board at {a} and at {b}", f"the numbers shown at {a} and {b}",
         f"the board numbers at {a} and {b}", f"the two numbers at {a} and {b}", f"what the board shows at {a} and {b}",
         f"the two board numbers of {a} and {b}", f"both numbers, {a} and {b}",
         f"the number at {a} and the number at {b}", f"the number at {a} and the one at {b}")
    )  # fmt: skip


def _number(rng: random.Random, time: str) -> str:
    return rng.choice(
        (f"the number at {time}", f"the number at {time}", f"the number on the board at {time}",
         f"the board's number at {time}", f"the number shown at {time}", f"what the board shows at {time}",
         f"the number {time} into the video", f"the board number at {time}")
    )  # fmt: skip


def invented(rng: random.Random) -> str:
    """A word that means nothing: ``zorbe``."""
    parts = (rng.choice(LETTERS[0]) + rng.choice(LETTERS[1]) for _ in range(rng.randint(1, 3)))
    last: str = rng.choice((*LETTERS[0], "", ""))
    return "".join(parts) + last
