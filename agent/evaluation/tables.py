"""An evaluation, or two, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text as Styled

from keyeloop.agent.evaluation.comparison import Comparison, Difference
from keyeloop.agent.evaluation.evaluate import REPORT, Evaluation
from keyeloop.agent.evaluation.standard_error import Estimate
from keyeloop.agent.evaluation.summary import Summary, grouped, summarise
from keyeloop.agent.wording import clipped, counted

MAX_SHOWN = 20
"""Failures, or changed questions, that are named; all are in the report."""
FEW_VIDEOS = 10
"""Below so many videos, an error clustered by them is rough itself."""
LINE_CHARS = 160


def print_evaluation(console: Console, made: Evaluation) -> None:
    """What was right, by kind and by family, what it took, and what was wrong."""
    priced = any(row.cost is not None for row in made.rows)
    table = Table("answers", box=SIMPLE, padding=0)  # all of it in 80 columns
    columns = "questions|right\n%|±\ns.e.|looked\nright %|tokens\nin|cached\n%|tokens\nout|seconds|calls".split("|")
    for name in [*columns, *(["cost"] if priced else [])]:
        table.add_column(name, justify="right")
    for name in ("kind", "family"):
        for value, rows in grouped(made.rows, name).items():
            if value:
                table.add_row(clipped(value, 40), *_cells(summarise(rows), priced))
        table.add_section()
    whole = summarise(made.rows)
    table.add_row("all", *_cells(whole, priced))
    console.print(table)
    for line in _notes(made, whole):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    _print_failures(console, made)


def print_comparison(console: Console, made: Comparison, first: Path, second: Path) -> None:
    """The second of two evaluations against the first: paired differences, and the questions that changed."""
    console.print(f"A: {first}\nB: {second}", soft_wrap=True, markup=False, highlight=False)
    table = Table("answers", box=SIMPLE, padding=0)
    for name in ("questions", "A\nright %", "B\nright %", "B - A", "± s.e.", "better", "worse", "tIoU B - A"):
        table.add_column(name, justify="right")
    for groups in (made.kinds, made.families):
        for name, one in groups.items():
            table.add_row(clipped(name, 40), *_difference_cells(one))
        table.add_section()
    table.add_row("all", *_difference_cells(made.all))
    console.print(table)
    apart = {"only in A": made.only_first, "only in B": made.only_second, "asked or wanted otherwise": made.unlike}
    for where, count in apart.items():
        if count:
            console.print(f"not compared: {counted(count, 'question')} {where}", highlight=False)
    for each in made.changed[:MAX_SHOWN]:
        style = "green" if each.second > each.first else "red"
        said = (
            f"wanted {clipped(each.wanted, 60)}; A: {clipped(each.first_said, 60)}; B: {clipped(each.second_said, 60)}"
        )
        console.print(Styled(f"{clipped(each.question, LINE_CHARS)}\n  {said}", style=style), soft_wrap=True)
        for run in filter(None, (each.first_run, each.second_run)):
            console.print(f"  keyeloop show {run}", soft_wrap=True, markup=False, highlight=False)
    if len(made.changed) > MAX_SHOWN:
        console.print(f"and {counted(len(made.changed) - MAX_SHOWN, 'more question')} that changed", highlight=False)


def _cells(made: Summary, priced: bool) -> list[str]:
    told = [
        f"{made.right.n:,}",
        *_percent(made.right),
        _share(made.looked_right),
        f"{made.input_tokens:,.0f}",
        _share(made.cached_share),
        f"{made.output_tokens:,.0f}",
        f"{made.seconds:,.1f}",
        f"{made.tool_calls:.1f}",
    ]
    return [*told, "" if made.cost is None else f"{made.cost:.4g}"] if priced else told


def _difference_cells(made: Difference) -> list[str]:
    tiou = "" if made.tiou is None else f"{made.tiou.mean:+.3f} ± {made.tiou.error:.3f}"
    return [
        f"{made.difference.n:,}",
        f"{100 * made.first:.1f}",
        f"{100 * made.second:.1f}",
        f"{100 * made.difference.mean:+.1f}",
        f"{100 * made.difference.error:.1f}",
        f"{made.better}",
        f"{made.worse}",
        tiou,
    ]


def _notes(made: Evaluation, whole: Summary) -> list[str]:
    """What stands below the table."""
    ends = ", ".join(f"{count} {status}" for status, count in made.report["statuses"].items())
    lines = [f"runs: {ends}"]
    if whole.tiou is not None and whole.reached is not None:
        reached = ", ".join(f"{at}: {_both(each)}" for at, each in whole.reached.items())
        lines.append(
            f"intervals: mean tIoU {whole.tiou.mean:.3f} ± {whole.tiou.error:.3f}; share that reaches {reached}"
        )
    judge: Mapping[str, Any] | None = made.report["judge"]
    if judge is not None:
        cost = "" if judge["cost"] is None else f", cost {judge['cost']:.4g}"
        missing = f", {judge['missing']} missing" if judge["missing"] else ""
        lines.append(
            f"judged by {', '.join(judge['models']) or 'nobody'}: {counted(judge['verdicts'], 'verdict')}{missing}, "
            f"{judge['input_tokens']:,} tokens in, {judge['output_tokens']:,} out{cost}"
        )
    right = whole.right
    if right.clusters == 1 and right.n > 1:
        lines.append("all questions share one video: the errors say nothing about other videos")
    elif right.clustered:
        few = ", which are few: the errors are rough" if right.clusters < FEW_VIDEOS else ""
        lines.append(f"errors are clustered by {counted(right.clusters, 'video')}{few}")
    return lines


def _print_failures(console: Console, made: Evaluation) -> None:
    wrong = [row for row in made.rows if not row.right]
    if wrong:
        console.print(f"wrong: {len(wrong):,} of {counted(len(made.rows), 'answer')}", highlight=False)
    for row in wrong[:MAX_SHOWN]:
        said = (
            f"said {clipped(row.said, 80)}" if row.said else f"{row.status}: {clipped(row.reason or 'no answer', 80)}"
        )
        text = f"{clipped(row.question, LINE_CHARS)}\n  wanted {clipped(row.wanted, 80)}; {said}"
        console.print(Styled(text, style="red"), soft_wrap=True)
        if row.run is not None:
            console.print(f"  keyeloop show {made.folder / row.run}", soft_wrap=True, markup=False, highlight=False)
    if len(wrong) > MAX_SHOWN:
        console.print(f"and {counted(len(wrong) - MAX_SHOWN, 'more')} in {made.folder / REPORT}", highlight=False)


def _percent(made: Estimate) -> tuple[str, str]:
    return f"{100 * made.mean:.1f}", f"{100 * made.error:.1f}"


def _both(made: Estimate) -> str:
    return "{} ± {} %".format(*_percent(made))


def _share(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f}"
