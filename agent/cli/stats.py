"""``keyeloop stats``: what runs took, by model and by tool."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from keyeloop.runtime.trajectory import RunSummary

WIDE = 200
"""Columns of a table that goes into a file."""
Row = dict[str, Any]


def stats(
    runs: Annotated[
        Path | None, typer.Argument(help="A folder of runs, or one run (default: runs).", show_default=False)
    ] = None,
    tools: Annotated[bool, typer.Option("--tools", help="Also by tool; every record is read whole for that.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Count runs, tokens, seconds, calls and cost, by model; with --tools by tool too."""
    from rich.console import Console
    from rich.table import Table

    from keyeloop.runtime.config import load_config
    from keyeloop.runtime.errors import InputError
    from keyeloop.runtime.trajectory import list_runs

    folder = runs or load_config().runs
    if runs is not None and not folder.exists():
        folder = load_config().runs / runs
    found = list_runs(folder)
    if not found:
        raise InputError(f"no runs in {folder}: name a folder of runs, or a run")
    read = [run for run in found if not run.problem]
    models = [_of_model(name, group) for name, group in _grouped(read, lambda run: run.model).items()]
    named = _of_tools([run.folder for run in read]) if tools else []
    unreadable = [{"run": run.name, "problem": run.problem} for run in found if run.problem]
    if as_json:
        print(json.dumps({"runs": len(found), "models": models, "tools": named, "unreadable": unreadable}))
        return 0
    console = Console()
    if not console.is_terminal:
        console.width = WIDE
    for rows in (models, named):
        if rows:
            table = Table(*rows[0], box=None, header_style="bold")
            for row in rows:
                table.add_row(*(_shown(value) for value in row.values()))
            console.print(table)
    for one in unreadable:
        print(f"{one['run']}: {one['problem']}")
    return 0


def _of_model(model: str, runs: Sequence[RunSummary]) -> Row:
    usages = [run.usage for run in runs]
    costs = [usage.cost for usage in usages if usage.cost is not None]
    read = sum(usage.input_tokens for usage in usages)
    return {
        "model": model,
        "runs": len(runs),
        "ends": dict(sorted(Counter(str(run.status) for run in runs).items())),
        "turns": median(run.totals.turns for run in runs),
        "calls": sum(run.totals.tool_calls for run in runs),
        "errors": sum(run.totals.errors for run in runs),
        "pictures": sum(run.totals.views for run in runs),
        "tokens in": read,
        "cached": round(sum(usage.cached_tokens for usage in usages) / read, 3) if read else 0.0,
        "out": sum(usage.output_tokens for usage in usages),
        "median s": round(median(run.totals.duration_s for run in runs), 2),
        "cost": round(sum(costs), 6) if costs else None,
    }


def _of_tools(folders: Sequence[Path]) -> list[Row]:
    from keyeloop.runtime.trajectory import CallStep, Trajectory

    made: dict[str, list[CallStep]] = defaultdict(list)
    for folder in folders:
        for step in Trajectory.salvage(folder).steps:
            for call in step.calls:
                made[call.called.call.name].append(call)
    rows: list[Row] = []
    for name, calls in sorted(made.items()):
        came = [call.returned for call in calls if call.returned is not None]
        rows.append(
            {
                "tool": name,
                "calls": len(calls),
                "errors": sum(one.error for one in came),
                "no result": len(calls) - len(came),
                "pictures": sum(len(one.views) for one in came),
                "median s": round(median(one.duration_s for one in came), 3) if came else None,
                "longest s": round(max(one.duration_s for one in came), 3) if came else None,
            }
        )
    return rows


def _grouped(runs: Sequence[RunSummary], key: Callable[[RunSummary], str]) -> dict[str, list[RunSummary]]:
    groups: dict[str, list[RunSummary]] = defaultdict(list)
    for run in runs:
        groups[key(run)].append(run)
    return groups


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count} {name}" for name, count in value.items())
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
