"""``keyeloop show``: read a run back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from keyeloop.runtime.trajectory import Trajectory


def show(
    run: Annotated[Path, typer.Argument(help="A run's folder, or its name below the folder of runs.")],
    full: Annotated[bool, typer.Option("--full", help="Do not cut long texts.")] = False,
) -> int:
    """Show a run: steps, calls, timings, tokens, where it looked, the answer. Also one that was cut off."""
    from rich.console import Console

    from keyeloop.agent.report import print_report
    from keyeloop.runtime.config import load_config

    print_report(read_run(run, load_config().runs), Console(), full=full)
    return 0


def read_run(run: Path, runs: Path) -> Trajectory:
    """The run that a person names: its folder, its journal, or its name below ``runs``. InputError for no run."""
    from keyeloop.runtime.errors import InputError, JournalError
    from keyeloop.runtime.trajectory import Trajectory

    folder = run.parent if run.is_file() else run
    if not folder.exists():
        folder = runs / run
    if not (folder / "journal.jsonl").is_file():
        raise InputError(f"no run in {run}: name the folder of a run, the one that holds journal.jsonl")
    try:
        return Trajectory.read(folder)
    except JournalError as error:
        raise InputError(str(error)) from None
