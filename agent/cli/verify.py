"""``keyeloop verify``: whether a checkpoint, and a server that runs it, are what keyeloop takes them to be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from keyeloop.agent.verification.verify import Report
    from keyeloop.model_backend.verification.finding import Finding

STYLES = {"confirmed": "green", "different": "bold red", "unknown": "yellow"}
SAME = ("the same", "it does")


def verify(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH_OR_URL...",
            help="A checkpoint's folder or keye-tiny, a server (http://host:port/v1), or both.",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    runs: Annotated[Path | None, typer.Option(help="Keep the runs that the server is asked for, here.")] = None,
) -> int:
    """Hold a checkpoint's small files, and a server's answers, against what the code takes for granted.

    Every open point is confirmed, different or unknown; what differs names the one file to change. Exit 1 when
    anything differs.
    """
    import asyncio
    import json

    from keyeloop.agent.models import needs_local

    with needs_local("verifying a checkpoint"):
        from keyeloop.agent.verification.verify import verify as check

    report = asyncio.run(check(targets, lambda text: None if as_json else _say(text), runs))
    if as_json:
        print(json.dumps(report.to_json(), indent=1, ensure_ascii=False))
    else:
        _show(report)
    return 1 if report.differs else 0


def _say(text: str) -> None:
    import sys

    print(text, file=sys.stderr, flush=True)


def _show(report: Report) -> None:
    from rich.console import Console

    from keyeloop.model_backend.verification.points import POINTS

    console = Console()
    where = " and ".join(str(place) for place in (report.folder, report.server) if place is not None)
    console.print(f"{report.model or 'a model of an unfamiliar shape'}: {where}", markup=False, highlight=False)
    numbers = sorted({one.point for one in report.findings if one.point is not None})
    for number in (*numbers, None):
        rows = [one for one in report.findings if one.point == number]
        if rows:
            title = "beside the open points" if number is None else f"{number}. {POINTS[number]}"
            console.print(f"\n{title}", style="bold", markup=False, highlight=False)
            console.print(_grid(rows))
    print("\n" + ", ".join(f"{number} {state}" for state, number in report.counts.items()))


def _grid(findings: Sequence[Finding]) -> Table:
    """State, key and what there is to say; what differs ends with the file to change."""
    from rich.table import Table
    from rich.text import Text

    from keyeloop.agent.wording import clean

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for one in findings:
        found = one.expected if one.found in SAME else one.found
        said = Text(clean(found if one.state == "confirmed" else f"{one.found}; expected: {one.expected}"))
        said.append(f" (from: {one.source})", "dim")
        if one.state == "different":
            said.append(f"\nchange {one.change}", "bold")
        grid.add_row(Text(one.state, STYLES[one.state]), one.key, said)
    return grid
