"""``python -m keyeloop`` is the command ``keyeloop``."""

from __future__ import annotations

from keyeloop.agent.cli import main

if __name__ == "__main__":
    main()
