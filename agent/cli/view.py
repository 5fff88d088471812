"""``keyeloop view``: recorded runs in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def view(
    runs: Annotated[
        Path | None, typer.Argument(help="A folder of runs, or one run (default: runs).", show_default=False)
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port on this machine (default: 7353, or a free one after it).")
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in this machine's browser.")] = False,
    export: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write one run as one self-contained page, and end.")
    ] = None,
) -> int:
    """Look at runs in a browser: where each looked, what it thought, did and was given; also while it goes on."""
    from importlib.util import find_spec

    from keyeloop.agent.cli.show import read_run
    from keyeloop.runtime.config import load_config
    from keyeloop.runtime.errors import ConfigError

    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise ConfigError("keyeloop view needs starlette and uvicorn: pip install 'keyeloop[view]'")
    folder = load_config().runs
    if export is not None:
        from keyeloop.agent.viewer.export import export_run

        written = export_run(read_run(runs or Path(), folder).folder, export)
        print(f"{export}: {written.size_bytes / 1e6:.1f} MB, {written.told}")
        return 0
    from keyeloop.agent.viewer.serving import serve

    root = runs or folder
    if not root.is_dir() and runs is not None and (folder / runs).is_dir():
        root = folder / runs
    serve(root, port, lambda url: print(f"{url} (Ctrl-C ends it)", flush=True), open_browser=open_browser)
    return 0
