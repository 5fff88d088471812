"""Answers kept on disk, providers by name, and those that are asked by a library or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keyeloop.runtime.errors import ConfigError, ToolError
from keyeloop.tools.answer_cache import AnswerCache
from keyeloop.tools.base import ToolContext
from keyeloop.tools.search.choice import NAMES, web_search_by
from keyeloop.tools.search.providers.base import ProviderFailed
from keyeloop.tools.search.providers.ddgs import Ddgs
from keyeloop.tools.search.providers.documents import Documents
from keyeloop.tools.search.result import SearchResult
from keyeloop.tools.search.web import WebSearch
from tests.tools.pages_site import Asked, Reply, Site
from tests.tools.search.conftest import said
from tests.tools.search_answers import KEY, MAKERS


async def test_kept_answers_serve_a_replay_without_a_network(site: Site, tmp_path: Path, context: ToolContext) -> None:
    providers = [MAKERS["brave"](site)]
    first = WebSearch(providers, cache=AnswerCache(tmp_path / "kept"))
    text = await said(first, context, query="lighthouses  of Brittany")
    assert await said(first, context, query="lighthouses of Brittany") == text and len(site.asked) == 1
    site.close()
    replay = WebSearch(providers, cache=AnswerCache(tmp_path / "kept", "only"))
    assert await said(replay, context, query="lighthouses of Brittany") == text
    with pytest.raises(ToolError, match="brave: the search for 'else' is not in the cache"):
        await said(replay, context, query="else")
    assert KEY not in "".join(path.read_text() for path in (tmp_path / "kept").iterdir())


async def test_old_and_damaged_answers_are_asked_anew(site: Site, tmp_path: Path) -> None:
    provider = MAKERS["brave"](site)
    for _ in range(2):
        await WebSearch([provider], cache=AnswerCache(tmp_path, max_age_s=0.0)).find("x")
    assert len(site.asked) == 2
    await WebSearch([provider], cache=AnswerCache(tmp_path, "any", max_age_s=0.0)).find("x")
    assert len(site.asked) == 2
    (kept,) = tmp_path.glob("*.json")
    kept.write_text("{")
    await WebSearch([provider], cache=AnswerCache(tmp_path)).find("x")
    assert len(site.asked) == 3 and json.loads(kept.read_text())["value"]
    await WebSearch([provider], cache=AnswerCache(tmp_path, "off")).find("x")
    assert len(site.asked) == 4


async def test_ddgs_reads_its_engine(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from ddgs.engines.duckduckgo import Duckduckgo

    monkeypatch.setattr(Duckduckgo, "search_url", f"{site.url}/html/")
    forms: list[Asked] = []
    link = "<h2><a>Lamp &amp; lens</a></h2><a href='https://example.org/a'>A lens of Fresnel</a>"
    page = f"<html><body><div class='links_main result__body'>{link}</div></body></html>"

    def answer(asked: Asked) -> Reply:
        forms.append(asked)
        return Reply(page.encode(), headers={"Content-Type": "text/html"})

    site.routes["/html/"] = answer
    results = await Ddgs("duckduckgo").search("lighthouses", 5)
    assert results == [
        SearchResult("Lamp & lens", "https://example.org/a", "A lens of Fresnel", None, "ddgs", 1)
    ]  # fmt: skip
    assert [(asked.method, "q=lighthouses" in asked.data) for asked in forms] == [("POST", True)]
    site.routes["/html/"] = Reply(b"<p>nothing")
    assert await Ddgs("duckduckgo").search("lighthouses", 5) == []
    site.close()
    with pytest.raises(ProviderFailed, match="no answer from its engines"):
        await Ddgs("duckduckgo").search("lighthouses", 5)


async def test_documents_are_a_provider_too(tmp_path: Path, context: ToolContext) -> None:
    (tmp_path / "light.md").write_text("# Lamps\n\nThe lens of Fresnel.\n")
    tool = WebSearch([Documents(tmp_path)])
    assert "1. Lamps (light.md)\n" in await said(tool, context, query="lens")
    assert await said(tool, context, query="quux") == "nothing was found for 'quux'; try other words"


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ("brave", "needs a key: set BRAVE_API_KEY or BRAVE_SEARCH_API_KEY"),
        ("tavily", "needs a key: set TAVILY_API_KEY in the environment"),
        ("serper", "set SERPER_API_KEY"),
        ("exa", "set EXA_API_KEY"),
        ("searxng", r"set searxng_url \(KEYELOOP_SEARXNG_URL\)"),
        ("documents", "needs a folder"),
        ("breve", "did you mean brave"),
        ("ddgs,exa+brave", "holds , and"),
        ("ddgs,ddgs", "twice"),
        (" , ", "names no provider"),
    ],
)
def test_what_is_missing_is_named(names: str, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("BRAVE_API_KEY", "BRAVE_SEARCH_API_KEY", "TAVILY_API_KEY", "SERPER_API_KEY", "EXA_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigError, match=problem):
        web_search_by(names)


def test_providers_come_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("BRAVE_SEARCH_API_KEY", "TAVILY_API_KEY", "SERPER_API_KEY", "EXA_API_KEY"):
        monkeypatch.setenv(variable, KEY)
    made = web_search_by(",".join(NAMES), documents=tmp_path, searxng_url="http://127.0.0.1:8888")
    assert tuple(one.name for one in made.providers) == NAMES
    assert KEY not in repr([vars(one) for one in made.providers if one.name in ("searxng", "documents")])
    monkeypatch.setenv("EXA_API_KEY", "two words")
    with pytest.raises(ConfigError, match="holds what no key has"):
        web_search_by("exa")
