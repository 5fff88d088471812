"""Texts for boards and signs: numbers of one to five digits, common words and made-up ones."""

from __future__ import annotations

import random

COMMON = (
    "garden river window silver planet bridge candle forest anchor basket button castle circle copper corner cotton "
    "desert dragon engine falcon feather finger flower guitar hammer harbor island jacket jungle kettle ladder lantern "
    "lemon letter magnet marble market meadow mirror morning needle ocean office orange paper pencil pepper pillow "
    "pocket rabbit ribbon rocket saddle school shadow signal spider spring square station stone summer table temple "
    "thunder ticket tiger tunnel valley velvet violet wagon walnut whistle winter wizard yellow zebra apple banana "
    "cherry door earth fire glass horse ink jazz kite leaf moon night owl piano queen rain salt tree up van wind xenon "
    "yard zinc north south east west open closed exit stop go slow fast red blue green gold alpha beta gamma delta"
).split()
_ONSETS = "b c d f g h j k l m n p r s t v w z br cl dr fl gr pl st tr sh ch th".split()
_VOWELS = "a e i o u ai ea oo ou".split()
_CODAS = ("", "", "", "n", "r", "s", "t", "l", "m", "k", "x", "nd", "st", "y")


def number(rng: random.Random, *, most_digits: int = 5) -> str:
    """A number without leading zero; two to four digits as a rule."""
    digits = rng.choices((1, 2, 3, 4, 5)[:most_digits], (1, 4, 6, 5, 2)[:most_digits])[0]
    return str(rng.randrange(10 ** (digits - 1) if digits > 1 else 0, 10**digits))


def word(rng: random.Random) -> str:
    """A word of up to eight letters, in capitals, lower case or title case."""
    kind = rng.random()
    if kind < 0.4:
        text = rng.choice(COMMON)
    elif kind < 0.85:
        text = "".join(
            rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(rng.choice((1, 2, 2)))
        )
    else:
        text = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 7)))
    text = text[:8]
    return rng.choice((text.upper(), text.lower(), text.title()))
