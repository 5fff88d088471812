"""JSON schemas of arguments: the short one that a model is told, the strict one that its calls are held to."""

from __future__ import annotations

from typing import Any

_KEY_ORDER = ("type", "description", "properties", "required", "enum", "items", "minItems", "maxItems")
_VALUES = frozenset({"default", "enum", "const", "required", "examples"})
"""Keywords whose values are data, not schemas."""
_NAMED = frozenset({"properties", "$defs", "patternProperties"})
"""Keywords under which keys are names, not words of the schema language."""


def compact(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without what tells a model nothing: titles, ``additionalProperties``, unions of bare types."""
    short = _short(schema)
    return {"type": "object", "properties": {}, "required": [], **short}


def strict(schema: Any) -> Any:
    """The schema that also refuses keys which an object does not declare, at every depth, unless it says otherwise."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _NAMED:
            made[key] = {name: strict(item) for name, item in value.items()}
        else:
            made[key] = value if key in _VALUES else strict(value)
    if "properties" in made and made.get("type", "object") == "object":
        made.setdefault("additionalProperties", False)
    return made


def _short(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_short(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    short: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "title" or (key == "additionalProperties" and value is False):
            continue
        if key in _NAMED:
            short[key] = {name: _short(item) for name, item in value.items()}
        else:
            short[key] = value if key in _VALUES else _short(value)
    _join_types(short)
    _join_items(short)
    order = [key for key in _KEY_ORDER if key in short]
    return {key: short[key] for key in (*order, *(key for key in short if key not in order))}


def _join_types(schema: dict[str, Any]) -> None:
    """``anyOf`` of bare types becomes a list of types."""
    choices = schema.get("anyOf", ())
    if choices and all(choice.keys() == {"type"} and isinstance(choice["type"], str) for choice in choices):
        del schema["anyOf"]
        schema["type"] = [choice["type"] for choice in choices]


def _join_items(schema: dict[str, Any]) -> None:
    """A fixed row of equal items (a tuple) becomes ``items``."""
    row = schema.get("prefixItems", ())
    if row and "items" not in schema and all(item == row[0] for item in row):
        del schema["prefixItems"]
        schema["items"] = row[0]
