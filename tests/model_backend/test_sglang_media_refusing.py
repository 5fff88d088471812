"""What stands in the place of SGLang's loaders: a picture by value passes, nothing else is opened."""

from __future__ import annotations

import sys
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from keyeloop.model_backend.sglang.plugin.media.refusing import (
    BY_VALUE,
    MODULE,
    NEVER,
    MediaRefused,
    by_value,
    refuse,
    require_refusals,
)
from keyeloop.runtime.errors import ConfigError
from keyeloop.runtime.picture import encode_picture

JPEG = encode_picture(np.zeros((28, 28, 3), np.uint8))
VALUE = f"data:image/jpeg;base64,{b64encode(JPEG).decode()}"


@dataclass
class ImageData:
    """As SGLang wraps what a request names."""

    url: str


def opened(*_: Any, **__: Any) -> str:
    return "opened"


@pytest.mark.parametrize("given", [VALUE, JPEG, ImageData(VALUE)])
def test_a_picture_by_value_passes(given: Any) -> None:
    assert by_value(opened, given) == "opened"
    assert by_value(opened, image_file=given) == "opened"


@pytest.mark.parametrize(
    "given", ["/etc/passwd", "a.png", "file:///a.png", "http://h/a.png", ImageData("/a.png"), b64encode(JPEG).decode(),
              "data:,x", None, ["/a"], 3, {"url": VALUE}]
)  # fmt: skip
def test_everything_else_is_refused_unopened(given: Any) -> None:
    for guard in (by_value, refuse):
        with pytest.raises(MediaRefused):
            guard(opened, given)
        with pytest.raises(MediaRefused):
            guard(opened, image_file=given)
    with pytest.raises(MediaRefused):
        refuse(opened, VALUE)


def common(**others: Any) -> ModuleType:
    """SGLang's module with the loaders of 0.5.17, which has no download_remote_media."""
    module = ModuleType(MODULE)
    for name in (*BY_VALUE, *NEVER[:-1]):
        setattr(module, name, others.get(name, guarded(name)))
    return module


def guarded(name: str) -> Callable[..., Any]:
    return lambda *args, **kwargs: (by_value if name in BY_VALUE else refuse)(opened, *args, **kwargs)


def test_a_server_starts_only_where_every_loader_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("sglang", "sglang.srt", "sglang.srt.utils"):
        monkeypatch.setitem(sys.modules, package, ModuleType(package))
    monkeypatch.setitem(sys.modules, MODULE, common())
    require_refusals()
    for broken in (*BY_VALUE, *NEVER[:-1]):
        for wrong in (opened, None):
            monkeypatch.setitem(sys.modules, MODULE, common(**{broken: wrong}))
            with pytest.raises(ConfigError, match=rf"did not reach {MODULE}.{broken}: this server would open"):
                require_refusals()
