"""What tests of pages share: a site on loopback, a run's context with a reader that stays, and opening a page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from keyeloop.runtime.content import Part, Text
from keyeloop.runtime.media import MediaStore
from keyeloop.runtime.views import ViewBook
from keyeloop.tools.base import ToolContext
from keyeloop.tools.pages.reading import PageReader
from keyeloop.tools.pages.tool import OpenPage
from keyeloop.tools.video.frames import close_decoder
from tests.tools.conftest import TileCost
from tests.tools.pages_site import Site, serving


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with serving() as site:
        yield site


@pytest.fixture(scope="module")
def shared() -> Iterator[PageReader]:
    with PageReader() as reader:
        yield reader


@pytest.fixture
async def context(tmp_path: Path, shared: PageReader) -> AsyncIterator[ToolContext]:
    context = ToolContext({}, MediaStore(tmp_path / "media"), ViewBook(), TileCost(), visual_budget_tokens=400)
    context.state["pages.reader"] = shared
    yield context
    close_decoder(context)


async def opened(site: Site, path: str, context: ToolContext, tool: OpenPage | None = None, **more: int) -> list[Part]:
    tool = tool or OpenPage([site.host])
    return list(await tool.call({"url": site.url + path, **more}, context))


def said(parts: list[Part]) -> str:
    return "".join(part.text for part in parts if isinstance(part, Text))
