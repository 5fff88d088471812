"""What tests of search share: providers' documented answers on loopback, a context without pictures, and a search."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keyeloop.runtime.content import Text
from keyeloop.runtime.media import MediaStore
from keyeloop.runtime.views import ViewBook
from keyeloop.tools.base import ToolContext
from keyeloop.tools.search.providers import asking
from keyeloop.tools.search.web import WebSearch
from tests.tools.conftest import TileCost
from tests.tools.pages_site import Reply, Site, serving
from tests.tools.search_answers import DOCUMENTED, PATHS


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(asking, "FIRST_PAUSE_S", 0.01)
    with serving() as site:
        for name, path in PATHS.items():
            site.routes[path] = Reply.of(DOCUMENTED[name])
        yield site


@pytest.fixture
def context(tmp_path: Path) -> ToolContext:
    return ToolContext({}, MediaStore(tmp_path), ViewBook(), TileCost(), 0)


async def said(tool: WebSearch, context: ToolContext, **arguments: Any) -> str:
    (part,) = await tool.call(arguments, context)
    assert isinstance(part, Text)
    return part.text
