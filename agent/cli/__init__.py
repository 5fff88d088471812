"""The ``keyeloop`` command; one subcommand a file. What is heavy is imported by the subcommand that needs it."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from keyeloop.agent.cli.ask import ask
from keyeloop.agent.cli.batch import batch
from keyeloop.agent.cli.clip import clip
from keyeloop.agent.cli.demo import demo
from keyeloop.agent.cli.demo_video import demo_video
from keyeloop.agent.cli.diff import diff
from keyeloop.agent.cli.doctor import doctor
from keyeloop.agent.cli.evaluate import evaluate
from keyeloop.agent.cli.export import export
from keyeloop.agent.cli.index import index
from keyeloop.agent.cli.journal import journal
from keyeloop.agent.cli.look import look
from keyeloop.agent.cli.mcp import mcp
from keyeloop.agent.cli.model import model
from keyeloop.agent.cli.replay import replay
from keyeloop.agent.cli.run import run
from keyeloop.agent.cli.sandbox import sandbox
from keyeloop.agent.cli.serve import serve
from keyeloop.agent.cli.show import show
from keyeloop.agent.cli.stats import stats
from keyeloop.agent.cli.verify import verify
from keyeloop.agent.cli.view import view
from keyeloop.runtime.errors import KeyeloopError, UsageError

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
_CommandError: type[Exception] = typer.BadParameter.__mro__[2]
"""What typer raises for a command line that it cannot read; it has no public name in typer."""


def build_app() -> typer.Typer:
    """The command with its subcommands."""
    app = typer.Typer(
        name="keyeloop",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for name, command in (
        ("run", run),
        ("ask", ask),
        ("batch", batch),
        ("eval", evaluate),
        ("show", show),
        ("diff", diff),
        ("stats", stats),
        ("export", export),
        ("replay", replay),
        ("view", view),
        ("look", look),
        ("index", index),
        ("clip", clip),
        ("doctor", doctor),
        ("demo", demo),
        ("demo-video", demo_video),
        ("mcp", mcp),
        ("model", model),
        ("verify", verify),
    ):
        app.command(name)(command)
    app.callback()(_keyeloop)
    app.command("serve", context_settings={"allow_extra_args": True})(serve)
    app.add_typer(journal, name="journal")
    app.add_typer(sandbox, name="sandbox")
    return app


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 something failed, 2 wrong input (one line on stderr), 130 Ctrl-C."""
    sys.exit(_run(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: list[str]) -> int:
    try:
        code = build_app()(args=arguments, prog_name="keyeloop", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except KeyeloopError as error:
        _complain(str(error))
        return exit_code(error)
    except typer.Exit as leave:
        return int(leave.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever read our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:
        if not isinstance(error, _CommandError):
            raise
        told = error.format_message() if hasattr(error, "format_message") else str(error)
        if told:
            _complain(f"{told} (keyeloop --help)")
        return EXIT_USAGE


def exit_code(error: KeyeloopError) -> int:
    """With what a command ends that is stopped by ``error``."""
    return EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED


def _tell_version(wanted: bool) -> None:
    """Print the version and end, where it is wanted."""
    if wanted:
        from keyeloop import __version__

        print(f"keyeloop {__version__}")
        raise typer.Exit


def _keyeloop(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Tell the version and leave.")
    ] = False,
) -> None:
    """An agent that watches: asks a vision-language model about videos, with tools, and cites what it saw."""


def _complain(text: str) -> None:
    """One line on stderr that cannot steer a terminal, whatever a file's name holds."""
    from keyeloop.agent.wording import clean

    print("error: " + clean(" ".join(text.split())), file=sys.stderr)
