"""``keyeloop show``: read a run back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from keyeloop.runtime.trajectory import Trajectory


def show(
    run: Annotated[Path, typer.Argument(help="A run's folder, or its name below the folder of runs.")],
    full: Annotated[bool, typer.Option("--full", help="Do not cut long texts.")] = False,
) -> int:
    """Show a run: steps, calls, timings, tokens, where it looked, the answer. Also one that was cut off.

    Of a damaged record it shows what can be read, tells the rest on stderr, and exits with 1.
    """
    from rich.console import Console

    from keyeloop.agent.report import print_report
    from keyeloop.runtime.config import load_config

    read = read_run(run, load_config().runs, damaged=True)
    print_report(read, Console(), full=full)
    lost = [found for found in read.damage if not found.torn]
    for found in lost:
        print(found, file=sys.stderr)
    return 1 if lost else 0


def run_folder(run: Path, runs: Path) -> Path:
    """The folder of the run that a person names: its folder, its journal, or its name below ``runs``.

    InputError for no run.
    """
    from keyeloop.runtime.errors import InputError
    from keyeloop.runtime.journal import is_run

    folder = run.parent if run.is_file() else run
    if not folder.exists():
        folder = runs / run
    if not is_run(folder):
        raise InputError(f"no run in {run}: name the folder of a run, the one that holds journal.jsonl")
    return folder


def read_run(run: Path, runs: Path, *, damaged: bool = False) -> Trajectory:
    """The run that a person names, as :func:`run_folder`. With ``damaged``, what can still be read of such a one.

    InputError for no run, and for one that cannot be read.
    """
    from keyeloop.runtime.errors import InputError, JournalError
    from keyeloop.runtime.trajectory import Trajectory

    folder = run_folder(run, runs)
    try:
        return Trajectory.salvage(folder) if damaged else Trajectory.read(folder)
    except JournalError as error:
        raise InputError(str(error)) from None
