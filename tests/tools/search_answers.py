"""What each search provider answers, field by field as its documentation has it, and how it is made for a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keyeloop.tools.search.providers.base import SearchProvider
from keyeloop.tools.search.providers.brave import Brave
from keyeloop.tools.search.providers.exa import Exa
from keyeloop.tools.search.providers.searxng import SearXNG
from keyeloop.tools.search.providers.serper import Serper
from keyeloop.tools.search.providers.tavily import Tavily
from tests.tools.pages_site import Site

KEY = "tvly-0123456789secret"
LLM = "https://arxiv.org/pdf/2307.06435.pdf"
DOCUMENTED: dict[str, dict[str, Any]] = {
    "searxng": {
        "query": "lighthouses", "number_of_results": 0, "answers": [], "corrections": [], "infoboxes": [],
        "suggestions": ["lighthouse keeper"], "unresponsive_engines": [["brave", "timeout"]],
        "results": [
            {"url": "https://example.org/a", "title": "Lamp &amp; lens", "content": "A <b>lens</b> of Fresnel",
             "publishedDate": "2023-11-16T01:36:32", "engine": "duckduckgo", "engines": ["duckduckgo"],
             "parsed_url": ["https", "example.org", "/a", "", "", ""], "positions": [1], "score": 1.0,
             "category": "general", "template": "default.html", "thumbnail": ""},
            {"url": "https://example.org/b", "title": "Second", "content": "", "publishedDate": None},
        ],
    },
    "brave": {
        "type": "search", "query": {"original": "lighthouses", "more_results_available": True}, "mixed": {},
        "web": {"type": "search", "results": [
            {"title": "Lamp &amp; lens", "url": "https://example.org/a", "is_source_local": False, "language": "en",
             "description": "A <strong>lens</strong> of Fresnel", "page_age": "2023-11-16T01:36:32",
             "age": "November 16, 2023", "profile": {"name": "Example"}, "extra_snippets": ["more"]},
            {"title": "Second", "url": "https://example.org/b", "description": "", "age": "3 days ago"},
        ]},
    },
    "tavily": {
        "query": "lighthouses", "answer": None, "images": [], "follow_up_questions": None, "response_time": 1.67,
        "request_id": "123e4567",
        "results": [
            {"title": "Lamp & lens", "url": "https://example.org/a", "content": "A lens of Fresnel", "score": 0.81,
             "raw_content": None, "published_date": "Thu, 16 Nov 2023 01:36:32 GMT"},
            {"title": "Second", "url": "https://example.org/b", "content": "", "score": 0.5, "raw_content": None},
        ],
    },
    "serper": {
        "searchParameters": {"q": "lighthouses", "type": "search", "num": 10},
        "knowledgeGraph": {"title": "Lighthouse", "type": "Building"}, "peopleAlsoAsk": [], "credits": 1,
        "organic": [
            {"title": "Lamp & lens", "link": "https://example.org/a", "snippet": "A lens of Fresnel",
             "date": "2023-11-16", "position": 1, "sitelinks": [{"title": "x", "link": "https://example.org/x"}]},
            {"title": "Second", "link": "https://example.org/b", "snippet": "", "position": 2},
        ],
    },
    "exa": {
        "requestId": "b5947044c4b78efa9552a7c89b306d95", "searchType": "neural", "costDollars": {"total": 0.005},
        "results": [
            {"title": "Lamp & lens", "url": "https://example.org/a", "publishedDate": "2023-11-16T01:36:32.547Z",
             "author": "Ada", "id": "https://example.org/a", "image": LLM, "favicon": LLM,
             "highlights": ["A lens of Fresnel"], "highlightScores": [0.46]},
            {"title": "Second", "url": "https://example.org/b", "id": "b"},
        ],
    },
}  # fmt: skip
MAKERS: dict[str, Callable[[Site], SearchProvider]] = {
    "searxng": lambda site: SearXNG(f"{site.url}/searxng/"),
    "brave": lambda site: Brave(KEY, f"{site.url}/brave"),
    "tavily": lambda site: Tavily(KEY, f"{site.url}/tavily"),
    "serper": lambda site: Serper(KEY, f"{site.url}/serper"),
    "exa": lambda site: Exa(KEY, f"{site.url}/exa"),
}
PATHS = {name: f"/{name}" for name in MAKERS} | {"searxng": "/searxng/search"}
