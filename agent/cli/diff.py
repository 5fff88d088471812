"""``keyeloop diff``: where two runs part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from keyeloop.agent.comparing import Comparison, Difference

SHOWN_CHARS = 300


def diff(
    one: Annotated[Path, typer.Argument(help="A run's folder, or its name below the folder of runs.")],
    other: Annotated[Path, typer.Argument(help="The run to hold against it.")],
    runs: Annotated[Path | None, typer.Option(help="Where runs are kept (default: runs).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Compare two runs step by step, pictures by their pixels; times, ids and counts of tokens are no differences.

    Exits with 1 where the runs differ.
    """
    from keyeloop.agent.cli.show import read_run
    from keyeloop.agent.comparing import compare
    from keyeloop.runtime.config import load_config

    below = load_config({"runs": runs}).runs
    found = compare(read_run(one, below), read_run(other, below))
    if as_json:
        print(json.dumps(comparison_record(found), ensure_ascii=False))
    else:
        print_comparison(found)
    return 1 if found.differences else 0


def print_comparison(found: Comparison, other: str | None = None) -> None:
    """Print differences, the first one marked as where the runs part; ``other`` names the second run."""
    from keyeloop.agent.wording import clean, clipped, counted

    if found.first is None:
        steps = counted(len(found.one.steps), "step")
        print(f"no difference in {steps}: {found.one.folder} and {other or found.other.folder}")
        return
    print(f"- {found.one.folder}\n+ {other or found.other.folder}\nthey part at {found.first.where}:")
    for difference in found.differences:
        print(f"{difference.where}, {difference.what}" + _picture_words(difference))
        for sign, text in (("-", difference.one), ("+", difference.other)):
            print(f"  {sign} {clipped(clean(text), SHOWN_CHARS) if text else '(none)'}")


def comparison_record(found: Comparison) -> dict[str, Any]:
    """Differences as JSON."""
    return {
        "one": str(found.one.folder),
        "other": str(found.other.folder),
        "equal": found.first is None,
        "differences": [
            {
                "question": one.question,
                "step": one.step,
                "what": one.what,
                "one": one.one,
                "other": one.other,
                "picture": None if one.picture is None else vars(one.picture),
            }
            for one in found.differences
        ],
    }


def _picture_words(difference: Difference) -> str:
    return "" if difference.picture is None else f": {difference.picture.words}"
