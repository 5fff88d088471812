"""A batch as it happens: a bar in a terminal, a plain line for each task elsewhere, a table at the end."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text as Styled

from keyeloop.agent.batch.result_file import FAILED, Record
from keyeloop.agent.wording import clean, clipped, counted

STYLES = {"answered": "green", "budget": "yellow", "stopped": "yellow", "failed": "red"}
"""Rows of the closing table, in order."""
MAX_FAILURES = 10
"""How many failures are named below the table; the others are in the results."""
LINE_CHARS = 120


class BatchView:
    """Shows the tasks of one batch on ``console``. Use as a context manager; feed it with :meth:`on`."""

    def __init__(self, console: Console, total: int, done: int = 0) -> None:
        """``done`` of the ``total`` tasks had their results before."""
        self._console, self._total, self._done = console, total, done
        self._failed = 0
        self._bar = Progress(
            SpinnerColumn(),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failed]}", style="red"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._row = self._bar.add_task("tasks", total=total, completed=done, failed="")

    def __enter__(self) -> BatchView:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def on(self, record: Record) -> None:
        """Show one finished task."""
        self._done += 1
        row = _row(record)
        self._failed += row == "failed"
        said = record["reason"] if row == "failed" else record["answer"]
        text = f"{self._done}/{self._total} {clean(record['id'])} {record['status']}, {record['seconds']:.1f} s: {said}"
        self._console.print(Styled(clipped(text, LINE_CHARS), style=STYLES[row]), soft_wrap=True)
        self._bar.update(self._row, completed=self._done, failed=f"{self._failed} failed" if self._failed else "")


def print_totals(console: Console, records: Iterable[Record]) -> None:
    """The closing table of tasks, tokens and seconds by outcome, and the failures by name."""
    every = list(records)
    priced = any(record.get("usage", {}).get("cost") is not None for record in every)
    table = Table("outcome")
    for name in ("tasks", "tokens in", "cached", "tokens out", "seconds", *(["cost"] if priced else [])):
        table.add_column(name, justify="right")
    for row, style in STYLES.items():
        table.add_row(Styled(row, style), *_sums([record for record in every if _row(record) == row], priced))
    table.add_section()
    table.add_row("all", *_sums(every, priced))
    console.print(table)
    failures = [record for record in every if _row(record) == "failed"]
    for record in failures[:MAX_FAILURES]:
        where = f" (keyeloop show {record['run']})" if record.get("run") else ""
        line = f"{clean(str(record['id']))}: {clipped(str(record.get('reason', '')), 2 * LINE_CHARS)}{where}"
        console.print(Styled(line, style="red"), soft_wrap=True)
    if len(failures) > MAX_FAILURES:
        console.print(Styled(f"and {counted(len(failures) - MAX_FAILURES, 'more failure')}", style="red"))


def _row(record: Record) -> str:
    status = str(record["status"])
    return "failed" if status in FAILED or status not in STYLES else status


def _sums(records: list[Record], priced: bool) -> tuple[str, ...]:
    def tokens(name: str) -> int:
        return sum(int(record.get("usage", {}).get(name, 0)) for record in records)

    seconds = sum(float(record.get("seconds", 0)) for record in records)
    told = (len(records), tokens("input_tokens"), tokens("cached_tokens"), tokens("output_tokens"))
    cost = sum(float(record.get("usage", {}).get("cost") or 0) for record in records)
    return (*(f"{value:,}" for value in told), f"{seconds:,.1f}", *([f"{cost:,.4g}"] if priced else []))
