"""Made-up things with facts, and short documents that tell them: what ``web_search`` finds when a board names a thing.

    python -m keyeloop.tools.demo_video.corpus tools/demo_video/documents

writes the documents that ship. Their names and numbers are drawn from one seed and mean nothing outside.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from keyeloop.tools.demo_video.words import COMMON, word

Property = Literal["height", "length", "depth", "weight", "year", "place", "count"]
SEED = 20
BUNDLED = 240
"""How many things the documents that ship are about."""
MENTIONED = 0.15
"""Part of the things that another document mentions too."""
SPOKEN = re.compile(r"(?:[^aeiou]{1,2}[aeiou]{1,2})+[^aeiou]{0,2}")
FOUNDED, BUILT, FOUND = "founded", "built", "discovered"

KINDS: Mapping[str, tuple[Property, ...]] = {
    "tower": ("height", "year", "place"), "bridge": ("length", "height", "year", "place"),
    "tunnel": ("length", "depth", "year"), "lighthouse": ("height", "year", "place"),
    "statue": ("height", "weight", "year", "place"), "dam": ("height", "length", "year"),
    "ship": ("length", "weight", "year"), "lake": ("depth", "length", "place"),
    "mountain": ("height", "place"), "cave": ("depth", "length", "year", "place"),
    "canal": ("length", "depth", "year"), "windmill": ("height", "year", "place"),
    "castle": ("count", "year", "place"), "hotel": ("count", "height", "year", "place"),
    "museum": ("count", "year", "place"), "bell": ("weight", "height", "year", "place"),
    "island": ("length", "count", "place"), "train": ("length", "weight", "count"),
    "well": ("depth", "year", "place"), "pyramid": ("height", "weight", "place"),
}  # fmt: skip
COUNTED = {"castle": "rooms", "hotel": "rooms", "museum": "halls", "island": "houses", "train": "seats"}
MADE = {"lake": FOUND, "cave": FOUND, "island": FOUND, "mountain": FOUND, "museum": FOUNDED, "hotel": FOUNDED}
HIGH = frozenset(("mountain", "dam", "bridge"))
ORDINARY = frozenset(
    (
        *COMMON,
        *KINDS,
        *COUNTED.values(),
        *MADE.values(),
        *"built high tall long deep weight near close twin older".split(),
    )
)
"""What documents say anyway: no name for a thing, since a search for it would find too many."""


@dataclass(frozen=True)
class Thing:
    """Something with a name and facts about it, as they are said: ``312 m``, ``1934``, ``Dorn``."""

    kind: str
    name: str
    facts: Mapping[Property, str]

    @property
    def path(self) -> str:
        """Its document in a folder of them."""
        return f"{self.name.lower()}.txt"


def made_up_name(rng: random.Random) -> str:
    """A name of four to eight letters in title case that can be spoken and is no common word."""
    while True:
        name = word(rng).title()
        if 4 <= len(name) <= 8 and SPOKEN.fullmatch(name.lower()) and name.lower() not in ORDINARY:
            return name


def sample_thing(rng: random.Random, name: str, *, facts: int = 2) -> Thing:
    """A thing called ``name`` of some kind, with that many facts where its kind has them."""
    kind = rng.choice(tuple(KINDS))
    known = rng.sample(KINDS[kind], min(facts, len(KINDS[kind])))
    return Thing(kind, name, {each: _value(rng, each, kind) for each in known})


def document(rng: random.Random, thing: Thing) -> str:
    """Its text: the name as a title, then its kind and its facts in one of many forms."""
    facts = [_fact(rng, each, value, thing.kind) for each, value in thing.facts.items()]
    rng.shuffle(facts)
    article = "An" if thing.kind[0] in "aeiou" else "A"
    forms: tuple[Callable[[], str], ...] = (
        lambda: f"{article} {thing.kind}, {', '.join(facts)}.",
        lambda: f"{article} {thing.kind} {' and '.join(facts)}.",
        lambda: f"{thing.name} is {article.lower()} {thing.kind}. It {'; it '.join(map(_with_is, facts))}.",
        lambda: f"{article} {thing.kind}. {' '.join(fact[0].upper() + fact[1:] + '.' for fact in facts)}",
        lambda: f"The {thing.kind} {thing.name} {' and '.join(map(_with_is, facts))}.",
    )
    return f"{thing.name}\n{rng.choice(forms)()}\n"


def mention(rng: random.Random, other: Thing, thing: Thing) -> str:
    """The text of ``other`` that names ``thing`` in passing."""
    title, text = document(rng, other).rstrip("\n").split("\n")
    return f"{title}\n{text} {rng.choice(('Near', 'Not far from', 'Twin of', 'Older than'))} {thing.name}.\n"


def bundled_things() -> dict[str, Thing]:
    """The things of the documents that ship, by name. keye-tiny was never trained on them."""
    rng, found = random.Random(SEED), dict[str, Thing]()
    while len(found) < BUNDLED:
        name = made_up_name(rng)
        if name not in found:
            found[name] = sample_thing(rng, name, facts=rng.choice((1, 2, 2, 3)))
    return found


def bundled_texts() -> dict[str, str]:
    """The documents that ship, by file name."""
    rng, things = random.Random(SEED + 1), list(bundled_things().values())
    texts: dict[str, str] = {}
    for thing in things:
        other = rng.choice(things)
        mentions = rng.random() < MENTIONED and other is not thing
        texts[thing.path] = mention(rng, thing, other) if mentions else document(rng, thing)
    return texts


def bundled_documents() -> Path:
    """The folder of the documents that ship, to be given as ``documents``."""
    return Path(str(files("keyeloop.tools.demo_video") / "documents"))


def write(folder: Path) -> int:
    """Write the documents into ``folder``; returns how many."""
    texts = bundled_texts()
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return len(texts)


def _value(rng: random.Random, each: Property, kind: str) -> str:
    if each == "year":
        return str(rng.randint(1300, 1999))
    if each == "place":
        return made_up_name(rng)
    if each == "count":
        return f"{rng.randint(2, 999)} {COUNTED[kind]}"
    if each == "weight":
        return f"{rng.randint(2, 9999)} t"
    unit = "km" if each == "length" and kind in ("canal", "lake", "island", "cave", "tunnel") else "m"
    return f"{rng.randint(2, 999)} {unit}"


def _fact(rng: random.Random, each: Property, value: str, kind: str) -> str:
    if each == "height":
        return f"{value} {'high' if kind in HIGH else 'tall'}"
    if each == "year":
        return f"{MADE.get(kind, BUILT)} in {value}"
    if each == "place":
        return f"{rng.choice(('in', 'near', 'north of', 'close to') if kind != 'bell' else ('from',))} {value}"
    if each == "count":
        return f"with {value}"
    return f"{value} {'long' if each == 'length' else 'deep' if each == 'depth' else 'in weight'}"


def _with_is(fact: str) -> str:
    """A fact after a subject: ``is 312 m tall``, ``was built in 1934``, ``has 20 rooms``."""
    if fact.startswith((BUILT, FOUNDED, FOUND)):
        return f"was {fact}"
    return f"has {fact.removeprefix('with ')}" if fact.startswith("with ") else f"is {fact}"


if __name__ == "__main__":
    print(f"{write(Path(sys.argv[1]))} documents")
