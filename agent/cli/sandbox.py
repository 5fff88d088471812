"""``keyeloop sandbox``: what there is to prepare for isolated code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

sandbox = typer.Typer(help="Prepare sandboxes for model-written code.", no_args_is_help=True)


@sandbox.callback()
def prepare() -> None:
    """Prepare sandboxes for model-written code."""


@sandbox.command("build-image")
def build_image(
    name: Annotated[str, typer.Option(help="Name of the image.")] = "keyeloop-sandbox:latest",
    python: Annotated[
        Path | None, typer.Option(help="Python to take it from; the one that runs keyeloop if not given.")
    ] = None,
    package: Annotated[
        list[str] | None, typer.Option(help="A package to put in besides the usual ones; may be repeated.")
    ] = None,
) -> int:
    """Make the image of the Docker engine from a Python of this machine; nothing is downloaded."""
    from keyeloop.agent.wording import clean
    from keyeloop.sandbox.docker.image import PACKAGES, build_image

    made = build_image(name, python, (*PACKAGES, *(package or ())))
    versions = ", ".join(f"{package} {version}" for package, version in sorted(made.versions.items()))
    print(clean(f"{made.name}: {made.size_bytes / 1e6:.0f} MB with {versions}"))
    return 0
