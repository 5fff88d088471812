"""Results that hang on objects which never change, such as a history's messages: made once for each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Remembered(Generic[Value]):
    """Values by the identity of the objects they were made of, which are held as long as their value is.

    Threads may share it.
    """

    def __init__(self, most: int) -> None:
        """``most`` values are kept; the oldest go first."""
        self._most = most
        self._kept: dict[tuple[Hashable, ...], tuple[tuple[object, ...], Value]] = {}
        self._lock = threading.Lock()

    def get(self, objects: tuple[object, ...], make: Callable[[], Value], also: Hashable = None) -> Value:
        """The value of these very objects (and of ``also``, by its equality), made now where it is not kept."""
        key = (also, *map(id, objects))
        found = self._kept.get(key)
        if found is None:
            found = objects, make()
            with self._lock:
                self._kept[key] = found
                while len(self._kept) > self._most:
                    del self._kept[next(iter(self._kept))]
        return found[1]

    def clear(self) -> None:
        """Drop all of them."""
        with self._lock:
            self._kept.clear()
