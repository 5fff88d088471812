"""One framework's verdicts on every case, as JSON on stdout: run with its name by the Python that has it."""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import jsonschema

from benchmarks.tool_schemas.cases import BAD, GOOD
from benchmarks.tool_schemas.frameworks import FRAMEWORKS, Made, version_of
from benchmarks.tool_schemas.functions import makers


def described(schema: dict[str, Any]) -> int:
    """How many parameters have words of their own."""
    properties = schema.get("properties", {})
    return sum(bool(one.get("description")) for one in properties.values() if isinstance(one, dict))


def schema_accepts(schema: dict[str, Any], arguments: dict[str, Any]) -> bool | None:
    """Whether the schema takes the arguments; None for a schema that is none."""
    try:
        kind = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
        kind.check_schema(schema)
        return bool(kind(schema, format_checker=jsonschema.FormatChecker()).is_valid(arguments))
    except Exception:
        return None


def call_accepts(made: Made, arguments: dict[str, Any]) -> bool | None:
    """Whether the function ran with what its hints say; None where it was called with something else."""
    try:
        return True if made.call(arguments) == "ok" else None
    except AssertionError:
        return None
    except Exception as error:
        return None if "AssertionError" in str(error) else False


def main() -> None:
    warnings.simplefilter("ignore")
    define, package = FRAMEWORKS[sys.argv[1]]
    rows: dict[str, Any] = {}
    for name, make in makers().items():
        try:
            made = make(define)
        except Exception as error:
            rows[name] = {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"}
            continue
        cases = [(True, each) for each in GOOD[name]] + [(False, each) for each in BAD[name]]
        rows[name] = {
            "described": described(made.told),
            "note": made.note,
            "cases": [
                {
                    "good": good,
                    "arguments": each,
                    "schema": schema_accepts(made.schema, each),
                    "call": call_accepts(made, each),
                }
                for good, each in cases
            ],
        }
    print(json.dumps({"version": version_of(package), "rows": rows}))


if __name__ == "__main__":
    main()
