"""A folder in memory for tests that write hundreds of synced records; on disk where there is no such place."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEMORY = Path("/dev/shm")


@contextmanager
def memory_folder() -> Iterator[Path]:
    """An empty folder, removed at the end."""
    place = MEMORY if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 256 << 20 else None
    folder = Path(tempfile.mkdtemp(prefix="keyeloop-test-", dir=place))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
