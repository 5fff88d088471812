"""Who holds an answer's words against what was wanted: a Python type by pydantic, or a JSON schema."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import CoreSchema

from keyeloop.agent.answer_schema import validator_of
from keyeloop.runtime.errors import ConfigError

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError as JSONSchemaError

MAX_PROBLEMS = 3
"""At most so many findings are told to the model."""
QUOTE_CHARS = 80


class Unfit(Exception):
    """Raised for words that are not what was wanted; ``told`` is empty where they are no JSON at all."""

    def __init__(self, told: str = "") -> None:
        super().__init__(told)
        self.told = told


class Reader(Protocol):
    """Reads values of one kind."""

    schema: dict[str, Any]

    def from_json(self, text: str) -> Any:
        """The value of a JSON text. Raises Unfit."""

    def from_words(self, words: str) -> Any:
        """The value that bare words are. Raises Unfit."""


class TypeReader:
    """Reads values of a Python type."""

    def __init__(self, wanted: Any) -> None:
        """Raises ConfigError for what is no type, or one that JSON cannot carry."""
        try:
            if inspect.isroutine(wanted):
                raise TypeError("it is a function")
            self._adapter: TypeAdapter[Any] = TypeAdapter(wanted)
            self.schema: dict[str, Any] = self._adapter.json_schema(schema_generator=_ShortSchema)
        except (PydanticUserError, TypeError) as error:
            raise ConfigError(
                f"answer={wanted!r} cannot be the type of an answer ({str(error).splitlines()[0]}): pass a pydantic "
                "model, a type that JSON can carry, such as int, Literal['yes', 'no'] or list[str], or a JSON schema"
            ) from None

    def from_json(self, text: str) -> Any:
        """The value of a JSON text. Raises Unfit."""
        try:
            return self._adapter.validate_json(text)
        except ValidationError as error:
            raise Unfit("" if error.errors()[0]["type"] == "json_invalid" else _told(error)) from None

    def from_words(self, words: str) -> Any:
        """The value that bare words are. Raises Unfit."""
        try:
            return self._adapter.validate_python(words)
        except ValidationError as error:
            raise Unfit(_told(error)) from None


class SchemaReader:
    """Reads values that fit a JSON schema: what JSON makes of them."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Raises ConfigError for what is no JSON schema."""
        self.schema = dict(schema)
        self._validator = validator_of(self.schema)

    def from_json(self, text: str) -> Any:
        """The value of a JSON text. Raises Unfit."""
        try:
            value = json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError):
            raise Unfit from None
        return self.from_words(value)

    def from_words(self, words: Any) -> Any:
        """The value that bare words are. Raises Unfit."""
        try:
            found = sorted(self._validator.iter_errors(words), key=lambda error: list(map(str, error.path)))
        except RecursionError:
            raise Unfit("the schema refers to itself without end") from None
        if found:
            raise Unfit(_few([_said(error) for error in found]))
        return words


class _ShortSchema(GenerateJsonSchema):
    """Fields without titles: their names say as much."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def generate(self, schema: CoreSchema, mode: Any = "validation") -> dict[str, Any]:
        made = super().generate(schema, mode)
        made.pop("title", None)
        return made


def _told(error: ValidationError) -> str:
    """``count: Input should be a valid integer, got 'many'``, for the first findings."""
    told = []
    for one in error.errors(include_url=False, include_context=False):
        where = ".".join(map(str, one["loc"]))
        given = "" if one["type"] == "missing" else f", got {_clip(repr(one['input']))}"
        told.append(f"{where}: {one['msg']}{given}" if where else f"{one['msg']}{given}")
    return _few(told)


def _said(error: JSONSchemaError) -> str:
    """``count: 'many' is not of type 'integer'``; what would be long has the rule first."""
    said = error.message
    if len(said) > 2 * QUOTE_CHARS:
        said = f"{error.validator} {_clip(json.dumps(error.validator_value))} does not hold, got {_clip(said)}"
    where = ".".join(map(str, error.path))
    return f"{where}: {said}" if where else said


def _few(told: list[str]) -> str:
    more = len(told) - MAX_PROBLEMS
    return "; ".join(told[:MAX_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")


def _clip(text: str) -> str:
    return text if len(text) <= QUOTE_CHARS else text[:QUOTE_CHARS] + "..."


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")
