"""A program that ignores polite signals, and so does its child: ``python stubborn_server.py FOLDER [leave]``.

Both write their process ids into FOLDER; with ``leave`` the child starts a session of its own first.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    child = os.fork() == 0
    if child and "leave" in sys.argv:
        os.setsid()
    name = folder / ("child" if child else "parent")
    name.with_suffix(".part").write_text(str(os.getpid()))
    name.with_suffix(".part").rename(name)
    os.write(1, b"listening\n")  # at once: the other one writes too
    time.sleep(600)
