"""Numbers in answers: read out of any wording, compared within a tolerance.

Where an answer holds several numbers **the last one counts**: models state what they worked with first ("383 + 821 =
1204", "between 3 and 5, so 4"). Thousands may be marked by commas, apostrophes or no-break spaces (``1,204``,
``1'204``), by dots where there are two or a decimal comma behind (``1.204.000``, ``1.204,5``); a comma before other
than three digits is a decimal one (``3,5``). Units are passed over, ``k``, thousand, million and billion count,
clock times are seconds (``1:23.5`` is 83.5). Words are read where there is no digit (``twenty-one``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from keyeloop.agent.evaluation.score import Said, Score
from keyeloop.runtime.moments import parse_time

ROUNDING = 1e-9
"""Of the wanted number: what decimal fractions lose in binary, added to every tolerance."""

_SCALES = {"k": 1e3, "hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9}
_MARKS = "'’\u00a0\u2009\u202f"
_CLOCK = r"(?<![\w:.])(?:\d+:)?\d{1,2}:\d{2}(?:\.\d+)?(?![\w:])"
_RUN = rf"(?<![\w.])[+\-−]?(?:\d[\d.,{_MARKS}]*|\.\d+)(?:[eE][+-]?\d+\b)?"
_TOKEN = re.compile(rf"(?P<clock>{_CLOCK})|(?P<run>{_RUN})(?P<scale>\s*(?:hundred|thousand|million|billion)\b|k\b)?")
_GROUPED = re.compile(rf"\d{{1,3}}(?:(?:,\d{{2}})*,\d{{3}}|(?:,\d{{3}})+|(?:[{_MARKS}]\d{{3}})+)(?:\.\d+)?")
_DOTTED = re.compile(r"\d{1,3}(?:(?:\.\d{3})+,\d+|(?:\.\d{3}){2,})")
_UNITS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen".split()
_UNITS += "seventeen eighteen nineteen".split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_WORDS = {word: number for number, word in enumerate(_UNITS)} | {
    word: 10 * number for number, word in enumerate(_TENS, 2)
}


@dataclass(frozen=True)
class Tolerance:
    """How far a number may be off: ``0.5``, or with ``relative`` that part of the wanted number (``5%`` is 0.05)."""

    allowed: float = 0.0
    relative: bool = False

    @classmethod
    def parse(cls, written: float | str) -> Tolerance:
        """Read ``0.5`` or ``"5%"``; ValueError for anything else."""
        text = str(written).strip()
        relative = text.endswith("%")
        allowed = float(text.removesuffix("%")) / (100 if relative else 1)
        if not 0 <= allowed < float("inf"):
            raise ValueError(f"tolerance {written!r} is negative or no number")
        return cls(allowed, relative)

    def holds(self, wanted: float, found: float) -> bool:
        """Whether ``found`` is near enough."""
        allowed = self.allowed * abs(wanted) if self.relative else self.allowed
        return abs(found - wanted) <= allowed + ROUNDING * abs(wanted)


def score_number(wanted: float, tolerance: Tolerance, said: Said) -> Score:
    """Right where the last number of the answer is within the tolerance."""
    found = read_number(said.plain)
    if found is None:
        return Score(False)
    return Score(tolerance.holds(wanted, found), f"{found:.12g}")


def read_number(text: str) -> float | None:
    """The last number in ``text``; None where there is none."""
    numbers = numbers_in(text)
    return numbers[-1] if numbers else None


def numbers_in(text: str) -> list[float]:
    """Every number in ``text``, in order; number words only where there is no digit."""
    found: list[float] = []
    for token in _TOKEN.finditer(text):
        if token["clock"]:
            found.append(parse_time(token["clock"]) or 0.0)
        else:
            scale = _SCALES[token["scale"].strip()] if token["scale"] else 1.0
            *others, last = _values(token["run"])
            found += [*others, last * scale]
    return found or _spelled(text)


def _values(run: str) -> list[float]:
    """What digits with marks between them say; a list without spaces (``3,5,7``) is several numbers."""
    sign = -1.0 if run[0] in "-−" else 1.0
    body, _, exponent = run.lstrip("+-−").lower().partition("e")
    body = body.rstrip(f".,{_MARKS}")
    power = 10.0 ** min(int(exponent or 0), 300)
    if _GROUPED.fullmatch(body):
        plain = re.sub(f"[,{_MARKS}]", "", body)
    elif _DOTTED.fullmatch(body):
        plain = body.replace(".", "").replace(",", ".")
    elif re.fullmatch(r"\d+,\d+", body):
        plain = body.replace(",", ".")
    else:
        plain = body
    if re.fullmatch(r"\d*\.?\d+", plain):
        return [sign * float(plain) * power]
    several = [float(part) for part in re.findall(r"\d+", body)]
    return [sign * several[0], *several[1:]]


def _spelled(text: str) -> list[float]:
    """Numbers in words, such as ``two hundred and five``."""
    found: list[float] = []
    total, current = 0.0, None
    for word in [*re.findall(r"[a-z]+", text.lower()), ""]:
        number = _WORDS.get(word)
        if number is not None and current and current % (10 if current % 100 >= 20 and number < 10 else 100) == 0:
            current += number  # twenty one, two hundred five
        elif number is not None and current == 0 and total:
            current = float(number)  # two thousand three
        elif current is not None and word in _SCALES and word != "k":
            total, current = (total, current * 100) if word == "hundred" else (total + current * _SCALES[word], 0.0)
        elif not (current is not None and word == "and"):
            found += [] if current is None else [total + current]
            total, current = 0.0, None if number is None else float(number)
    return found
