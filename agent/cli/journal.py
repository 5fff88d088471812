"""``keyeloop journal``: check records, clean up behind runs, pack a run into one file, print the schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

journal = typer.Typer(
    name="journal", help="Records of runs: check, clean up, pack into one file, their schema.", no_args_is_help=True
)
Runs = Annotated[Path | None, typer.Option("--runs", help="Where runs are kept (default: runs).")]


@journal.command("verify")
def verify(
    run: Annotated[list[Path] | None, typer.Argument(help="Runs; left out, all of them.", show_default=False)] = None,
    runs: Runs = None,
) -> int:
    """Check every line, checksum and picture; exits with 1 where anything is lost, each told with its file."""
    from keyeloop.agent.cli.show import run_folder
    from keyeloop.runtime.config import load_config
    from keyeloop.runtime.journal import is_run
    from keyeloop.runtime.journal.checking import check_run

    below = load_config({"runs": runs}).runs
    folders = [run_folder(one, below) for one in run or ()]
    if not run:
        folders = sorted(path for path in below.iterdir() if is_run(path)) if below.is_dir() else []
    checks = [check_run(folder) for folder in folders]
    for check in checks:
        for problem in check.problems:
            print(f"{check.folder.name}: {problem}")
        if check.torn:
            print(f"{check.folder.name}: its last line was cut off by a kill; nothing that had been recorded is lost")
    damaged = sum(not check.sound for check in checks)
    events, pictures = sum(check.events for check in checks), sum(check.pictures for check in checks)
    print(f"{len(checks)} runs, {events} events, {pictures} pictures checked: {damaged or 'none'} damaged")
    return 1 if damaged else 0


@journal.command("gc")
def collect(
    runs: Runs = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")] = False,
) -> int:
    """Remove pictures that no run needs any more, and what killed processes left unfinished.

    To delete a run, delete its folder; this frees what only it had shared.
    """
    from keyeloop.runtime.config import load_config
    from keyeloop.runtime.journal.collecting import find_garbage, remove_garbage

    garbage = find_garbage(load_config({"runs": runs}).runs)
    if dry_run:
        for one in garbage:
            print(f"{one.path}: {one.why}, {one.size_bytes} bytes")
        print(f"{len(garbage)} files would go")
        return 0
    freed = remove_garbage(garbage)
    print(f"{len(garbage)} files removed, {freed / 1e6:.1f} MB freed")
    return 0


@journal.command("pack")
def pack_run(
    run: Annotated[Path, typer.Argument(help="A run's folder, or its name below the folder of runs.")],
    file: Annotated[Path | None, typer.Argument(help="The file to write (default: NAME.keyeloop).")] = None,
    with_video: Annotated[
        bool, typer.Option("--with-video", help="Pack the videos and pictures that it looked into, too.")
    ] = False,
    runs: Runs = None,
) -> int:
    """Pack a run, its record and the pictures that it was shown, into one file."""
    from keyeloop.agent.cli.show import run_folder
    from keyeloop.runtime.config import load_config
    from keyeloop.runtime.journal.portable import SUFFIX, pack

    folder = run_folder(run, load_config({"runs": runs}).runs)
    target = file or Path(folder.absolute().name + SUFFIX)
    print(f"{target}: {pack(folder, target, sources=with_video) / 1e6:.2f} MB")
    return 0


@journal.command("unpack")
def unpack_run(
    file: Annotated[Path, typer.Argument(help="What pack has written.")],
    runs: Runs = None,
) -> int:
    """Put a packed run back among the runs; everything in it is checked first."""
    from keyeloop.runtime.config import load_config
    from keyeloop.runtime.journal.portable import unpack

    print(unpack(file, load_config({"runs": runs}).runs))
    return 0


@journal.command("schema")
def schema() -> int:
    """Print the JSON Schema of a record's lines."""
    import json

    from keyeloop.runtime.events import journal_schema

    print(json.dumps(journal_schema(), indent=2))
    return 0
