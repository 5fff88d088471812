"""A JSON schema as what an answer has to be: from a file, a line of a batch, or a dictionary in Python."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keyeloop.runtime.errors import ConfigError, InputError

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

TRIED: tuple[Any, ...] = (None, 0, "", [], {})
"""One value of each sort, so that a schema that cannot be used is found out before a run."""


def read_schema(path: Path) -> dict[str, Any]:
    """The JSON schema in a file. InputError for a file that cannot be read or holds none."""
    try:
        schema = json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise InputError(f"the answer schema {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"the answer schema {path} is no JSON: {error}") from None
    if not isinstance(schema, dict):
        raise InputError(f'the answer schema {path} is no object: write one such as {{"type": "integer"}}')
    try:
        validator_of(schema)
    except ConfigError as error:
        raise InputError(f"{path}: {error}") from None
    return schema


def validator_of(schema: Mapping[str, Any]) -> Validator:
    """What checks answers against ``schema``; nothing is ever fetched for it. ConfigError for what is no schema."""
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    kind = validator_for(schema)
    try:
        json.dumps(schema)
        kind.check_schema(schema, format_checker=kind.FORMAT_CHECKER)
        root = DRAFT202012.create_resource(schema)
        registry = Registry().with_resource(root.id() or "", root)
        for reference in _references(schema):
            registry.resolver(root.id() or "").lookup(reference)
        made: Validator = kind(dict(schema), registry=registry)
        for value in TRIED:
            list(made.iter_errors(value))
    except SchemaError as error:
        raise ConfigError(f"this is no JSON schema: {error.message}") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"this is no JSON schema: {error}") from None
    except RecursionError:
        raise ConfigError("this JSON schema refers to itself without end") from None
    except Unresolvable as error:
        raise ConfigError(f"this JSON schema refers to {error.ref!r}, which is not in it: write it into it") from None
    return made


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)
