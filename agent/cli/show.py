"""``keyeloop show``: read a run back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def show(
    run: Annotated[Path, typer.Argument(help="A run's folder, or its name below the folder of runs.")],
    full: Annotated[bool, typer.Option("--full", help="Do not cut long texts.")] = False,
) -> int:
    """Show a run: steps, calls, timings, tokens, where it looked, the answer. Also one that was cut off."""
    from rich.console import Console

    from keyeloop.agent.report import print_report
    from keyeloop.runtime.config import load_config
    from keyeloop.runtime.errors import InputError, JournalError
    from keyeloop.runtime.trajectory import Trajectory

    folder = run.parent if run.is_file() else run
    if not folder.exists():
        folder = load_config().runs / run
    if not (folder / "journal.jsonl").is_file():
        raise InputError(f"no run in {run}: name the folder of a run, the one that holds journal.jsonl")
    try:
        trajectory = Trajectory.read(folder)
    except JournalError as error:
        raise InputError(str(error)) from None
    print_report(trajectory, Console(), full=full)
    return 0
