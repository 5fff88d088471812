"""What made a record."""

from __future__ import annotations

import platform

from keyeloop import __version__


def versions() -> dict[str, str]:
    """Versions that tell why two runs may differ."""
    return {"keyeloop": __version__, "python": platform.python_version()}
