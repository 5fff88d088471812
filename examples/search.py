"""Search the web and open what was found, by hand and by a model.

Needs no key: `python search.py "lighthouses of Brittany"` asks ddgs (pip install "keyeloop[search,pages]").
With a key in the environment, name a provider: `python search.py "..." brave`.
"""

import asyncio
import os
import sys

from keyeloop import Agent
from keyeloop.model_backend.scripted import ScriptedBackend, call
from keyeloop.tools import OpenPage
from keyeloop.tools.search.choice import web_search_by


async def main(question: str, names: str = "ddgs", allowed: str = "") -> None:
    """Print what is found, then let a script in place of a model open the first page."""
    search = web_search_by(names, searxng_url=os.environ.get("KEYELOOP_SEARXNG_URL"))
    found = await search.find(question, 3)
    for result in found.results:
        print(f"{result.rank}. {result.title} ({result.url}, {result.published}, by {result.provider})")
    for failure in found.failures:
        print("failed:", failure)

    model = ScriptedBackend(
        [call("web_search", query=question), call("open_page", url=found.results[0].url, pictures=0), "Read it."],
        context_tokens=32_768,
    )
    answer = await Agent(model, tools=[search, OpenPage([allowed] if allowed else [])]).run(question)
    print(answer, answer.run)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
