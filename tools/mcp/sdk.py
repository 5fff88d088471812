"""The SDK of the protocol, which is an extra and takes more than half a second to import."""

from __future__ import annotations

from keyeloop.runtime.errors import ConfigError


def require_sdk() -> None:
    """Import the SDK. Raises ConfigError with the cure where it is missing."""
    try:
        import mcp
    except ImportError as error:
        raise ConfigError(f"MCP needs its SDK ({error}): pip install 'keyeloop[mcp]'") from None
    del mcp
