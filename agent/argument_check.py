"""Arguments of a call held against their tool's schema, and what is wrong with them in words for the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from keyeloop.runtime.errors import ToolDefinitionError
from keyeloop.tools.base import Tool

if TYPE_CHECKING:
    from jsonschema.protocols import Validator


def check_schemas(tools: Iterable[Tool]) -> dict[str, Validator]:
    """A validator of arguments for each tool; ToolDefinitionError for parameters that are no JSON schema.

    A tool with a ``strict_schema`` is held to that, any other to the schema that the model is told.
    """
    return {tool.spec.name: _validator(tool) for tool in tools}


def misfit(validator: Validator, arguments: Mapping[str, Any]) -> str | None:
    """What is wrong with arguments, and where; None where nothing is."""
    from jsonschema.exceptions import best_match

    try:
        wrong = best_match(validator.iter_errors(dict(arguments)))
    except RecursionError:
        return "the arguments are nested too deeply"
    if wrong is None:
        return None
    where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in wrong.path).lstrip(".")
    message = wrong.message
    if wrong.validator == "additionalProperties" and isinstance(wrong.instance, dict):
        known = wrong.schema.get("properties", {})
        unknown = ", ".join(repr(key) for key in wrong.instance if key not in known)
        message = f"there is no {unknown}; known: {', '.join(known) or 'none'}"
    return f"{where}: {message}" if where else str(message)


def _validator(tool: Tool) -> Validator:
    from jsonschema.exceptions import SchemaError  # a fifth of all imports, and a plan checks no call
    from jsonschema.validators import validator_for
    from referencing import Registry

    schema = dict(getattr(tool, "strict_schema", None) or tool.spec.parameters)
    kind = validator_for(schema)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise ToolDefinitionError(
            f"the parameters of tool {tool.spec.name!r} are no JSON schema: {error.message}"
        ) from None
    for reference in _references(schema):
        if not _resolves(reference, schema):
            raise ToolDefinitionError(
                f"the parameters of tool {tool.spec.name!r} refer to {reference!r}: everything must be in the schema"
            )
    made: Validator = kind(schema, registry=Registry())  # which fetches nothing
    return made


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key in ("$ref", "$dynamicRef") and isinstance(value, str):
                yield value
            elif key not in ("default", "enum", "const", "examples"):
                yield from _references(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from _references(item)


def _resolves(reference: str, schema: Any) -> bool:
    """Whether ``#/$defs/Name`` leads somewhere within the schema itself."""
    if not reference.startswith("#"):
        return False
    place = schema
    for step in reference[1:].split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(place, list) and name.isdigit() and int(name) < len(place):
            place = place[int(name)]
        elif isinstance(place, dict) and name in place:
            place = place[name]
        else:
            return False
    return reference in ("#",) or reference.startswith("#/")
