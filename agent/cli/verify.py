"""``keyeloop verify``: whether a checkpoint, and a server that runs it, are what keyeloop takes them to be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from keyeloop.agent.verification.verify import Report

STYLES = {"confirmed": "green", "different": "bold red", "unknown": "yellow"}


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

    from keyeloop.agent.wording import clean

    Console().print(_table(report))
    counts = report.counts
    for finding in report.findings:
        if finding.state == "different":
            print(f"{finding.key} differs: expected {clean(finding.expected)}; found {clean(finding.found)}")
            print(f"  expected from: {finding.source}")
            print(f"  change {finding.change}")
    print(", ".join(f"{number} {state}" for state, number in counts.items()))


def _table(report: Report) -> Table:
    from rich.table import Table
    from rich.text import Text

    from keyeloop.agent.wording import clean
    from keyeloop.model_backend.verification.points import POINTS

    table = Table("what", "state", "expected", "found", "expected from", title=report.model or "an unfamiliar model")
    before: int | None = -1
    for finding in report.findings:
        if finding.point != before:
            before = finding.point
            title = "seen on the server, and the weights" if before is None else f"{before}. {POINTS[before]}"
            table.add_section()
            table.add_row(Text(title, "bold"), "", "", "", "")
        table.add_row(finding.key, Text(finding.state, STYLES[finding.state]), Text(clean(finding.expected)),
                      Text(clean(finding.found)), Text(finding.source))  # fmt: skip
    return table
