"""Sandboxes that wait, started and with libraries imported, so that a run gets one at once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

from keyeloop.runtime.errors import ConfigError, KeyeloopError, SandboxError
from keyeloop.sandbox.opening import open_sandbox
from keyeloop.sandbox.protocol import Sandbox
from keyeloop.sandbox.spec import SandboxSpec

LIBRARIES: Final = ("numpy", "cv2", "PIL.Image", "matplotlib.pyplot")
"""Imported ahead unless the spec names others; one that is not installed is left out."""


class SandboxPool:
    """Keeps ``size`` sandboxes of one spec ready and gives each away once; nobody gets a used one.

    The first begin to start at once, a replacement for one that was taken starts behind the taker's back, each in a
    thread of its own. Whoever takes a sandbox closes it. One that waited longer than its limits allow (``idle_s``) has
    ended and is started anew when it is taken. Safe to share between threads.
    """

    def __init__(
        self,
        spec: SandboxSpec | None = None,
        engine: str = "auto",
        *,
        size: int = 1,
        opener: Callable[[SandboxSpec, str], Sandbox] = open_sandbox,
    ) -> None:
        """``opener`` starts one. Raises ConfigError for a size below one."""
        if size < 1:
            raise ConfigError(f"a pool of {size} sandboxes keeps none ready: let it keep one at least")
        spec = spec or SandboxSpec()
        self.spec = spec if spec.preimport else replace(spec, preimport=LIBRARIES)
        self.engine = engine
        self._size = size
        self._opener = opener
        self._ready: deque[Sandbox] = deque()
        self._starting = 0
        self._closed = False
        self._changed = threading.Condition()
        self._refill()

    def take(self) -> Sandbox:
        """A sandbox that has run nothing: a ready one, or one that is starting, else one started now.

        Raises SandboxUnavailable or SandboxError as :func:`open_sandbox` does, SandboxError once closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ready or not self._starting or self._closed)
            self._require_open()
            sandbox = self._ready.popleft() if self._ready else None
        if sandbox is None:  # the background could not: the reason is told here
            sandbox = self._opener(self.spec, self.engine)
        self._refill()
        sandbox.start()
        return sandbox

    def fill(self, timeout_s: float = 60.0) -> bool:
        """Wait until all that can be started is ready; whether the pool is full then."""
        with self._changed:
            self._changed.wait_for(lambda: not self._starting or self._closed, timeout_s)
            return len(self._ready) >= self._size

    def close(self) -> None:
        """End those that wait, also those that are still starting; idempotent."""
        with self._changed:
            self._closed = True
            waiting = list(self._ready)
            self._ready.clear()
            self._changed.notify_all()
        for sandbox in waiting:
            sandbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _refill(self) -> None:
        with self._changed:
            if self._closed:
                return
            missing = self._size - len(self._ready) - self._starting
            self._starting += max(0, missing)
        for _ in range(missing):
            threading.Thread(target=self._start_one, name="sandbox-pool", daemon=True).start()

    def _start_one(self) -> None:
        sandbox: Sandbox | None = None
        try:
            sandbox = self._opener(self.spec, self.engine)
            sandbox.start()
        except (KeyeloopError, OSError):  # told by the next take, which tries again; at exit it was ended under way
            pass
        finally:
            with self._changed:
                self._starting -= 1
                if sandbox is not None and not self._closed:
                    self._ready.append(sandbox)
                    sandbox = None
                self._changed.notify_all()
        if sandbox is not None:
            sandbox.close()

    def _require_open(self) -> None:
        if self._closed:
            raise SandboxError("the pool of sandboxes is closed: make another one")
