"""SGLang's loaders open any path and any address that a request names. In a Keye server they open nothing.

Pictures are loaded by :mod:`.pictures` alone. What else of SGLang might load something (another endpoint, another
route to the same functions) meets these replacements: a picture by value passes, everything else is refused unopened.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from keyeloop.model_backend.sglang.plugin.media.pictures import value_of
from keyeloop.runtime.errors import ConfigError, InputError

MODULE = "sglang.srt.utils.common"
BY_VALUE = ("load_image", "get_image_bytes")
NEVER = ("load_video", "load_audio", "get_video_bytes", "encode_video", "download_remote_media")
_PROBE = "/keyeloop-refuses-this"


class MediaRefused(ValueError):
    """Raised for media that this server does not open; SGLang answers it as a bad request."""


def register_refusals() -> None:
    """Replace the loaders that this SGLang has, in every module that imported them."""
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    common = import_module(MODULE)
    for name in (*BY_VALUE, *NEVER):
        if hasattr(common, name):
            HookRegistry.register(f"{MODULE}.{name}", by_value if name in BY_VALUE else refuse, HookType.AROUND)


def require_refusals() -> None:
    """Raise ConfigError unless every loader refuses a path."""
    common = import_module(MODULE)
    for name in (*BY_VALUE, *NEVER):
        if not hasattr(common, name):
            continue
        try:
            getattr(common, name)(_PROBE)
        except MediaRefused:
            continue
        except Exception:
            pass
        raise ConfigError(f"keyeloop's plugin did not reach {MODULE}.{name}: this server would open what requests "
                          "name; see the log above for why the plugin failed")  # fmt: skip


def by_value(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The original for bytes and for a picture's data URI; MediaRefused for everything else."""
    given = args[0] if args else next(iter(kwargs.values()), None)
    url = getattr(given, "url", given)
    if isinstance(url, str):
        try:
            value_of(url)
        except InputError as error:
            raise MediaRefused(str(error)) from None
    elif not isinstance(given, bytes):
        raise MediaRefused(f"{type(given).__name__} is refused: this server takes pictures by value")
    return original(*args, **kwargs)


def refuse(_: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """MediaRefused, always."""
    given = args[0] if args else next(iter(kwargs.values()), None)
    named = repr(getattr(given, "url", given))[:60]
    raise MediaRefused(f"{named} is refused: this server opens no path and no address, and no encoded video or sound")
