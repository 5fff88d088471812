"""Typed answers: what an answer has to be, how the model is told so, and what is read out of its words."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import CoreSchema

from keyeloop.runtime.citations import strip_citations
from keyeloop.runtime.errors import ConfigError

MAX_PROBLEMS = 3
"""At most so many of pydantic's findings are told to the model."""
QUOTE_CHARS = 80
_FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Reading:
    """What an answer's words hold: a value, or the problem with them."""

    value: Any = None
    problem: str | None = None


class AnswerForm:
    """The type of an answer: a pydantic model, a dataclass, or a plain type such as ``int`` or ``list[str]``."""

    def __init__(self, wanted: Any) -> None:
        """Raises ConfigError for what is no type, or one that JSON cannot carry."""
        try:
            if inspect.isroutine(wanted):
                raise TypeError("it is a function")
            self._adapter: TypeAdapter[Any] = TypeAdapter(wanted)
            self.schema = self._adapter.json_schema(schema_generator=_ShortSchema)
        except (PydanticUserError, TypeError) as error:
            raise ConfigError(
                f"answer={wanted!r} cannot be the type of an answer ({str(error).splitlines()[0]}): pass a pydantic "
                "model, or a type that JSON can carry, such as int, Literal['yes', 'no'] or list[str]"
            ) from None
        top = self.schema.get("$ref", "").removeprefix("#/$defs/")
        self._composed = self.schema.get("$defs", {}).get(top, self.schema).get("type") in ("object", "array")

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
        problem: str | None = None
        for candidate in dict.fromkeys(_candidates(text)):
            try:
                return Reading(self._adapter.validate_json(candidate))
            except ValidationError as error:
                if problem is None and error.errors()[0]["type"] != "json_invalid":
                    problem = _told(error)
        if not self._composed:
            for words in (text.strip(), strip_citations(text)):
                try:
                    return Reading(self._adapter.validate_python(words))
                except ValidationError as error:
                    problem = problem or _told(error)
        return Reading(problem=problem or "it is not JSON")


def answer_form(wanted: Any) -> AnswerForm | None:
    """The form of answers of type ``wanted``; None, which is no type, asks for none."""
    return wanted if wanted is None or isinstance(wanted, AnswerForm) else AnswerForm(wanted)


def read_answer(form: AnswerForm | None, text: str) -> Reading:
    """The value of an answer; nothing where no form was asked for."""
    return Reading() if form is None else form.read(text)


class _ShortSchema(GenerateJsonSchema):
    """Fields without titles: their names say as much."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def generate(self, schema: CoreSchema, mode: Any = "validation") -> dict[str, Any]:
        made = super().generate(schema, mode)
        made.pop("title", None)
        return made


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


def _told(error: ValidationError) -> str:
    """``count: Input should be a valid integer, got 'many'``, for the first findings."""
    found = error.errors(include_url=False, include_context=False)
    told = []
    for one in found[:MAX_PROBLEMS]:
        where = ".".join(map(str, one["loc"]))
        given = "" if one["type"] == "missing" else f", got {_clip(repr(one['input']))}"
        told.append(f"{where}: {one['msg']}{given}" if where else f"{one['msg']}{given}")
    more = len(found) - len(told)
    return "; ".join(told) + (f"; and {more} more" if more else "")


def _clip(text: str) -> str:
    return text if len(text) <= QUOTE_CHARS else text[:QUOTE_CHARS] + "..."
