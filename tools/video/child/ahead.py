"""Making what is wanted next in a thread of its own, while what was made before is used."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Iterator[Item], waiting: int) -> Iterator[Item]:
    """The same items in the same order, made in another thread; at most so many are ``waiting`` to be taken.

    What making one raises is raised in its place. Once closed, it returns when the item in the making is done.
    """
    made: SimpleQueue[Item | _End] = SimpleQueue()
    room, over = threading.Semaphore(waiting), threading.Event()

    def make() -> None:
        try:
            while room.acquire() and not over.is_set():
                made.put(next(items))
        except StopIteration:
            made.put(_End(None))
        except BaseException as error:
            made.put(_End(error))

    maker = threading.Thread(target=make, daemon=True)
    maker.start()
    try:
        while not isinstance(item := made.get(), _End):
            room.release()
            yield item
            del item  # its memory is free while the next is waited for
        if item.error is not None:
            raise item.error
    finally:
        over.set()
        room.release()
        maker.join()


class _End:
    def __init__(self, error: BaseException | None) -> None:
        self.error = error
