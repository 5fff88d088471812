"""The kinds of answers: what a question of each must have, how it is asked, how its answer is scored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from keyeloop.agent.evaluation.choice import score_choice, with_options
from keyeloop.agent.evaluation.exact import score_exact
from keyeloop.agent.evaluation.interval import score_interval
from keyeloop.agent.evaluation.number import Tolerance, read_number, score_number
from keyeloop.agent.evaluation.question import KindName, Question, QuestionLine
from keyeloop.agent.evaluation.score import Said, Score, folded

KINDS: tuple[KindName, ...] = get_args(KindName)
INTERVAL_INSTRUCTION = "Give its start and its end in seconds, as in: from 12.0 s to 15.5 s."


def kind_of(line: QuestionLine) -> KindName:
    """The kind that a question declares, or the one that what it has makes."""
    if line.kind is not None:
        return line.kind
    if line.options is not None:
        return "choice"
    if line.tolerance is not None:
        return "number"
    return "interval" if line.answer is None and line.start_s is not None else "exact"


def problems(line: QuestionLine) -> Iterator[str]:
    """What keeps a question of its kind from being scored."""
    kind, wanted = kind_of(line), line.wanted()
    if (line.start_s is None) != (line.end_s is None):
        yield "it has one of start_s and end_s: give both, or neither"
    elif line.start_s is not None and line.end_s is not None and line.end_s < line.start_s:
        yield f"it ends at {line.end_s:g} s, before it starts at {line.start_s:g} s"
    if kind == "interval":
        if line.start_s is None or line.end_s is None or line.end_s <= line.start_s:
            yield "kind interval: start_s and end_s are the answer, give both, end_s the later"
    elif not wanted or not all(wanted):
        yield f"kind {kind}: it has no answer"
    elif kind == "choice":
        yield from _bad_choice(line)
    elif kind == "number":
        yield from (f"answer {each!r} holds no number" for each in wanted if read_number(each) is None)
    if line.tolerance is not None:
        try:
            Tolerance.parse(line.tolerance)
        except ValueError:
            yield f'tolerance {line.tolerance!r}: write 0.5, or "5%" of the answer'
    for name, holder in (("options", "choice"), ("tolerance", "number")):
        if getattr(line, name) is not None and kind != holder:
            yield f"kind {kind} has no {name}: they are for kind {holder}"


def words_to_ask(line: QuestionLine) -> str:
    """The question as the model reads it."""
    text = (line.task or line.question or "").strip()
    match kind_of(line):
        case "choice":
            return with_options(text, line.lettered())
        case "interval":
            return f"{text}\n{INTERVAL_INSTRUCTION}"
        case _:
            return text


def score(question: Question, said: Said) -> Score:
    """What an answer is worth, of every kind but ``judged``, whose answers another model reads."""
    match question.kind:
        case "exact":
            return score_exact(question.wanted, said)
        case "choice":
            return score_choice(wanted_letter(question.wanted[0], question.options), question.options, said)
        case "number":
            scores = [score_number(read_number(each) or 0.0, question.tolerance, said) for each in question.wanted]
            return next((each for each in scores if each.right), scores[0])
        case "interval":
            assert question.interval is not None, "checked when it was read"
            return score_interval(question.interval, said)
        case "judged":
            raise ValueError(f"question {question.id} is judged: its answer is no matter of words")


def wanted_letter(answer: str, options: dict[str, str]) -> str:
    """The letter of an answer that is given as letter or as text; empty where it is neither."""
    if answer.strip(" ().").upper() in options:
        return answer.strip(" ().").upper()
    return next((letter for letter, text in options.items() if folded(text) == folded(answer)), "")


def _bad_choice(line: QuestionLine) -> Iterator[str]:
    options = line.lettered()
    if not 2 <= len(options) <= 26 or not all(len(each) == 1 and "A" <= each <= "Z" for each in options):
        yield "kind choice: give 2 to 26 options, as a list or by single letters"
    elif len(line.wanted()) != 1 or not wanted_letter(line.wanted()[0], options):
        yield f"answer {' or '.join(line.wanted())!r} is none of the options: give one letter, or the text of one"
