"""A child process as its holder has it: started when first needed, talked to over a socket, replaced when it dies."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from types import ModuleType

import keyeloop
import keyeloop.runtime
import keyeloop.tools
import keyeloop.tools.confined
from keyeloop.runtime.errors import OperatorError
from keyeloop.tools.confined.wire import WireBroken, WireClosed, receive

START_TIMEOUT_S = 60.0
_ABOVE = (keyeloop, keyeloop.runtime, keyeloop.tools, keyeloop.tools.confined)
_PASSED_ON = ("LD_LIBRARY_PATH", "SYSTEMROOT")
_SET = {
    "LC_ALL": "C.UTF-8",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "4194304",
    "MALLOC_TRIM_THRESHOLD_": "4194304",
}
"""Few threads, and memory that large pictures took goes back to the system: the C library would keep it for later."""
_BOOT = """
import importlib, json, sys, types
setup = json.loads(sys.argv[1])
sys.path[:] = setup["path"]
for name, folders in setup["packages"].items():
    package = sys.modules[name] = types.ModuleType(name)
    package.__path__ = folders
importlib.import_module(setup["main"]).main(setup["channel"])
"""
"""Packages above the child are entered without running them: they would import all of keyeloop."""


class ConfinedChild:
    """Runs ``main(channel)`` of a module that gives up its rights and says ``{"filtered": ...}``. Not for many threads.

    ``above`` are the packages between ``keyeloop.tools`` and the module, which are not run; ``what`` names the child in
    errors, ``imports`` what it needs.
    """

    def __init__(self, main: str, above: Sequence[ModuleType], *, what: str, imports: str) -> None:
        self._main, self._above, self._what, self._imports = main, (*_ABOVE, *above), what, imports
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self.filtered = False
        """Whether the running child has the system-call filter."""

    @property
    def pid(self) -> int | None:
        """Process id of the child, None while there is none."""
        return None if self._process is None else self._process.pid

    def channel(self) -> socket.socket:
        """The socket of a child that runs, started now if need be. Raises OperatorError where none can be started."""
        if self._channel is not None and self._process is not None and self._process.poll() is None:
            return self._channel
        self.drop(0)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            setup = {
                "main": self._main,
                "path": [entry for entry in sys.path if entry],
                "packages": {package.__name__: list(package.__path__) for package in self._above},
                "channel": theirs.fileno(),
            }
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", "-c", _BOOT, json.dumps(setup)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={name: os.environ[name] for name in _PASSED_ON if name in os.environ} | _SET,
            )
        self._channel = ours
        ours.settimeout(START_TIMEOUT_S)
        try:
            hello, _, _ = receive(ours)
        except (WireClosed, WireBroken, TimeoutError) as error:
            status = self.drop(1.0)
            raise OperatorError(
                f"the {self._what} did not start (exit status {status}, {error}); "
                f"check that `python -c 'import {self._imports}'` works here"
            ) from None
        self.filtered = hello.get("filtered") is True
        return ours

    def kill(self) -> None:
        """End the child at once, from any thread; whoever waits for it finds the channel closed."""
        process = self._process
        if process is not None:
            process.kill()

    def drop(self, patience_s: float) -> int | None:
        """Let go of the child, ending it if it does not end by itself; its exit status, None if there was none."""
        process, channel, self._process, self._channel = self._process, self._channel, None, None
        if channel is not None:
            channel.close()
        if process is None:
            return None
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
        return process.wait()
