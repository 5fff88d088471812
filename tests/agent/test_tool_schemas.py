"""Twelve functions as tools: every case that is compared with other frameworks, and the table that is published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from benchmarks.tool_schemas.__main__ import RESULT, behind, table
from benchmarks.tool_schemas.cases import BAD, GOOD
from benchmarks.tool_schemas.frameworks import Made, ours
from benchmarks.tool_schemas.functions import makers
from benchmarks.tool_schemas.judge import call_accepts, schema_accepts

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", makers())
def test_what_fits_is_taken_and_what_does_not_is_refused(name: str) -> None:
    made: Made = makers()[name](ours)
    for arguments in GOOD[name]:
        assert schema_accepts(made.schema, arguments) and call_accepts(made, arguments), arguments
    for arguments in BAD[name]:
        assert schema_accepts(made.schema, arguments) is False, arguments
        assert call_accepts(made, arguments) is False, arguments
    jsonschema.Draft202012Validator.check_schema(made.told)
    assert all(one.get("description") for one in made.told["properties"].values()), "the docstring is told"


def test_the_published_table_is_that_of_the_results() -> None:
    results: dict[str, Any] = json.loads(RESULT.read_text())["results"]
    page = (ROOT / "docs" / "tools.md").read_text(encoding="utf-8")
    assert behind(results) == [] and table(results) in page
