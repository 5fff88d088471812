"""Typed answers: what an answer has to be, how the model is told so, and what is read out of its words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from keyeloop.agent.answer_reader import Reader, SchemaReader, TypeReader, Unfit
from keyeloop.runtime.citations import strip_citations

_FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Reading:
    """What an answer's words hold: a value, or the problem with them."""

    value: Any = None
    problem: str | None = None


class AnswerForm:
    """What an answer has to be: a pydantic model, a dataclass, a plain type such as ``int``, or a JSON schema."""

    def __init__(self, wanted: Any) -> None:
        """Raises ConfigError for what is no type, or one that JSON cannot carry, and for what is no JSON schema."""
        self._reader: Reader = SchemaReader(wanted) if isinstance(wanted, Mapping) else TypeReader(wanted)
        self.schema = self._reader.schema
        top = str(self.schema.get("$ref", "")).removeprefix("#/$defs/")
        outer = self.schema.get("$defs", {}).get(top, self.schema)
        self._composed = isinstance(outer, Mapping) and outer.get("type") in ("object", "array")

    @property
    def instructions(self) -> str:
        """What stands behind the question."""
        return (
            "When you are done, answer with JSON that fits this schema, and no other words:\n"
            f"{json.dumps(self.schema, ensure_ascii=False)}\n"
            "Citations such as [f1 310,200,640,460] stand inside its strings, or behind it."
        )

    def read(self, text: str) -> Reading:
        """The value in an answer's words: JSON, alone or in a fence or among citations; for a plain type also words.

        Citations inside strings are kept.
        """
        problem = ""
        for candidate in dict.fromkeys(_candidates(text)):
            try:
                return Reading(self._reader.from_json(candidate))
            except Unfit as unfit:
                problem = problem or unfit.told
        if not self._composed:
            for words in (text.strip(), strip_citations(text)):
                try:
                    return Reading(self._reader.from_words(words))
                except Unfit as unfit:
                    problem = problem or unfit.told
        return Reading(problem=problem or "it is not JSON")


def answer_form(wanted: Any) -> AnswerForm | None:
    """The form of answers of type ``wanted``; None, which is no type, asks for none."""
    return wanted if wanted is None or isinstance(wanted, AnswerForm) else AnswerForm(wanted)


def read_answer(form: AnswerForm | None, text: str) -> Reading:
    """The value of an answer; nothing where no form was asked for."""
    return Reading() if form is None else form.read(text)


def _candidates(text: str) -> Iterator[str]:
    yield text.strip()
    yield from reversed(_FENCED.findall(text))
    bare = strip_citations(text)
    yield bare
    for words in (text, bare):
        for opening, closing in ("{}", "[]"):
            begin, end = words.find(opening), words.rfind(closing)
            if 0 <= begin < end:
                yield words[begin : end + 1]
