"""Which of the offered options an answer chooses, however it is worded.

In this order: a letter alone; the last "the answer is B"; a letter that leads the answer ("B) ..."); a letter alone on
the last line; "option B"; the text of one option; the only capital letter that stands alone. "A" and "I" as words are
no letters, and an option that is negated ("not B", "B is wrong") is not chosen. Where that leaves none or several,
nothing was chosen.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping

from keyeloop.agent.evaluation.score import Said, Score, folded

INSTRUCTION = "Answer with the letter of one option."

_AFTER_A = "because|since|as|which|for|but|not|is|was|seems|looks|and|or|would"
"""What may follow a capital A that is a letter; before another word it is an article."""
_NAMED = r"[(\[\"'<]*(?P<letter>[A-Za-z])(?![\w'’])(?P<close>[)\]\"'>]*\s*(?:[.:,;!)\]]|$))?"
_STATED = re.compile(
    r"\b(?:(?:answer|choice|response)(?:\s+(?:is|was|would\s+be|must\s+be|should\s+be|to\s+this(?:\s+question)?\s+is))?"
    r"|(?:i\s+)?(?:choose|chose|pick|select|go\s+with|going\s+with|opt\s+for))"
    r"\s*[:=\-–]?\s*(?:(?:the\s+)?(?:option|choice|letter|answer)\s+)?" + _NAMED,
    re.IGNORECASE,
)
_OPTION = re.compile(r"\b(?:option|choice|letter)\s+" + _NAMED, re.IGNORECASE)
_LONE = re.compile(r"[^\w]*(?P<letter>[A-Za-z])[^\w]*")
_LEADING = re.compile(r"\s*[(\[\"']*(?P<letter>[A-Za-z])(?:[)\]\"']*\s*(?:[).:\]\n]|[-–—,]\s)|$)")
_STANDING = re.compile(r"(?<![\w'’.])" + _NAMED)
_REFUSED = re.compile(
    r"[\s)\]\"':]*(?:is|was|are|would be|seems|looks|can ?be|must be)?\s*"
    r"(?:not\b|n't|wrong|incorrect|false|ruled out|out\b|cannot|can't|isn't|doesn't|does not|eliminated)",
    re.IGNORECASE,
)
_NOT = re.compile(
    r"(?:\bnot|n't|\bneither|\bnor|\bthan|\bexcept|rules? out|exclude)\s+(?:option\s+|choice\s+)?[(\[\"']*$",
    re.IGNORECASE,
)
_SEVERAL = re.compile(
    r"[)\]\"']*\s*(?:[,/&]|,?\s+(?:and|or)\b)\s*[(\[\"']*(?-i:[A-Z])(?![\w'’])(?!\s+(?:is|was)\b)", re.I
)
"""Behind a letter: another one beside it."""


def score_choice(wanted: str, options: Mapping[str, str], said: Said) -> Score:
    """Right where the letter that was chosen is ``wanted``."""
    letter = read_choice(said.plain, options)
    return Score(letter == wanted, letter or "")


def with_options(question: str, options: Mapping[str, str]) -> str:
    """The question as it is asked: the options below it, a letter before each, and how to answer."""
    return "\n".join([question, *(f"{letter}. {text}" for letter, text in options.items()), INSTRUCTION])


def read_choice(text: str, options: Mapping[str, str]) -> str | None:
    """The letter of the option that an answer (without its citations) chooses; None where it chooses none of them."""
    plain = re.sub(r"\\(?:boxed|text|mathrm|textbf)\s*\{([^{}]*)\}", r"\1", unicodedata.normalize("NFKC", text))
    plain = re.sub(r"[*_`$]+", "", plain).strip()
    if lone := _LONE.fullmatch(plain):
        return _known(lone["letter"], options)
    same = [letter for letter, option in options.items() if folded(option) == folded(plain)]
    if len(same) == 1:
        return same[0]
    stated = [found for found in _STATED.finditer(plain) if _chosen(plain, found, options)]
    if stated:
        return None if _SEVERAL.match(plain, stated[-1].end("letter")) else _known(stated[-1]["letter"], options)
    lead, last = _LEADING.match(plain), _LONE.fullmatch(plain.splitlines()[-1]) if plain else None
    for found in (lead, last):
        if found is not None and not (found is lead and _SEVERAL.match(plain, found.end("letter"))):
            letter = _known(found["letter"], options)
            if letter is not None:
                return letter
    for candidates in (
        set(_letters(_OPTION, plain, options)),
        set(_texts(plain, options)),
        set(_letters(_STANDING, plain, options)),
    ):
        if len(candidates) == 1:
            return candidates.pop()
        if candidates:
            return None
    return None


def _letters(pattern: re.Pattern[str], text: str, options: Mapping[str, str]) -> Iterator[str]:
    """Letters of options that stand as such and are not refused, in order."""
    for found in pattern.finditer(text):
        letter = found["letter"]
        bare = letter.islower() and text[found.start("letter") - 1 : found.start("letter")] != "("
        if _chosen(text, found, options) and not (pattern is _STANDING and bare):
            yield letter.upper()


def _chosen(text: str, found: re.Match[str], options: Mapping[str, str]) -> bool:
    """Whether a letter is one of an option, no word, and not refused."""
    return _known(found["letter"], options) is not None and not _word(text, found) and not _refused(text, found)


def _word(text: str, found: re.Match[str]) -> bool:
    """Whether the letter is the article or the pronoun: small or A or I, with another word behind and no mark."""
    letter, end = found["letter"], found.end("letter")
    if (letter.isupper() and letter not in "AI") or found["close"] or text[found.start("letter") - 1] in "([\"'":
        return False
    following = re.match(r"\s+(\w+)", text[end:])
    if following is None:
        return letter == "I" and text[end : end + 1] in ("'", "’")
    allowed = letter == "A" and re.fullmatch(_AFTER_A, following[1], re.IGNORECASE)
    return not allowed


def _refused(text: str, found: re.Match[str]) -> bool:
    """Whether the words around a letter say that it is not the one."""
    return bool(_NOT.search(text[: found.start("letter")]) or _REFUSED.match(text, found.end("letter")))


def _texts(text: str, options: Mapping[str, str]) -> Iterator[str]:
    """Options whose text stands in the answer; one that is part of a longer one there does not count."""
    rest = folded(text)
    for letter, option in sorted(options.items(), key=lambda each: -len(folded(each[1]))):
        words = folded(option)
        found = re.compile(rf"(?<!\w){re.escape(words)}(?!\w)") if words else None
        if found is not None and (hits := list(found.finditer(rest))):
            rest = found.sub("\0", rest)
            if not all(_NOT.search(hit.string[: hit.start()]) for hit in hits):
                yield letter


def _known(letter: str, options: Mapping[str, str]) -> str | None:
    return letter.upper() if letter.upper() in options else None
