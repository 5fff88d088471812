"""The server of ``keyeloop view``: uvicorn on a loopback address, and on no other."""

from __future__ import annotations

import gc
import socket
import webbrowser
from collections.abc import Callable
from pathlib import Path

import uvicorn

from keyeloop.agent.viewer.app import build_app
from keyeloop.runtime.errors import InputError

HOST = "127.0.0.1"
PORT = 7353
"""The first one that is tried where none is named."""
TRIED_PORTS = 20
COLLECTED_AFTER = 400_000
"""New objects before the collector of cycles looks through them: reading a long record makes many, none in cycles, and
it would take a third of the time."""
STOP_S = 1
"""How long open answers may go on when the server is told to stop."""


def bind(port: int | None) -> socket.socket:
    """A listening socket on this machine's loopback address. InputError where the named port is taken."""
    for wanted in range(PORT, PORT + TRIED_PORTS) if port is None else (port,):
        taken = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind((HOST, wanted))
            taken.listen(128)
            return taken
        except OSError as error:
            taken.close()
            problem = error.strerror
    named = f"{PORT} to {PORT + TRIED_PORTS - 1}" if port is None else port
    raise InputError(f"the viewer cannot use port {named} of {HOST}: {problem}; name another with --port")


def serve(root: Path, port: int | None, told: Callable[[str], None], *, open_browser: bool = False) -> None:
    """Show the runs in ``root`` until Ctrl-C; ``told`` gets the address once it answers."""
    listener = bind(port)
    with listener:
        real_port = int(listener.getsockname()[1])
        app = build_app(root, real_port)
        url = f"http://{HOST}:{real_port}/"
        told(url)
        if open_browser:
            webbrowser.open(url)
        gc.freeze()
        gc.set_threshold(COLLECTED_AFTER)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_graceful_shutdown=STOP_S, lifespan="off", ws="none"
        )
        uvicorn.Server(config).run(sockets=[listener])
