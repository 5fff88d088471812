"""Whether what an engine needs is installed; nothing of it is imported."""

from __future__ import annotations

from importlib.util import find_spec

from keyeloop.runtime.errors import ConfigError


def require_extra(extra: str, tool: str, *modules: str) -> None:
    """Raise ConfigError, with the command that installs it, where any of ``modules`` is missing."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f'{tool} needs {" and ".join(missing)}: pip install "keyeloop[{extra}]", or give it an engine of your own'
        )
