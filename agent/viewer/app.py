"""The viewer's addresses. Everything is read when it is asked for; nothing is ever written."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from keyeloop.agent.viewer.filters import Filter
from keyeloop.agent.viewer.guard import Guard
from keyeloop.agent.viewer.library import Library
from keyeloop.agent.viewer.opened import OpenedRun, OpenedRuns
from keyeloop.agent.viewer.pages import SMALL_PX, Pages, run_url
from keyeloop.agent.viewer.pictures import small_picture
from keyeloop.agent.viewer.sources import find_source, may_be_found
from keyeloop.agent.viewer.timeline import CHUNK_STEPS
from keyeloop.runtime.errors import KeyeloopError
from keyeloop.runtime.events import Event, RunEnded, event_to_line
from keyeloop.runtime.picture import read_header

STATIC = {
    "viewer.css": "text/css",
    "page.js": "text/javascript",
    "run.js": "text/javascript",
    "eye.svg": "image/svg+xml",
}
FOREVER = {"cache-control": "private, max-age=31536000, immutable"}
"""For what is found by its content."""
MOST_STEPS = 1000
"""Of one answer."""
FRESH = {"cache-control": "no-cache"}


def build_app(root: Path, port: int) -> Starlette:
    """The app that shows the runs in ``root`` and is asked as ``127.0.0.1:port``. InputError for no such folder."""
    shelf = _Shelf(root)
    routes = [
        Route("/", shelf.page(shelf.list)),
        Route("/rows", shelf.page(shelf.rows)),
        Route("/compare", shelf.page(shelf.compare)),
        Route("/static/{name}", shelf.static),
        Route("/run/{name:path}/-/steps", shelf.page(shelf.steps)),
        Route("/run/{name:path}/-/tail", shelf.page(shelf.tail)),
        Route("/run/{name:path}/-/search", shelf.page(shelf.search)),
        Route("/run/{name:path}/-/event/{seq:int}", shelf.page(shelf.event)),
        Route("/run/{name:path}/-/media/{sha256}", shelf.page(shelf.media)),
        Route("/run/{name:path}/-/source/{source}", shelf.page(shelf.source)),
        Route("/run/{name:path}", shelf.page(shelf.run)),
    ]
    return Starlette(routes=routes, middleware=[Middleware(Guard, port=port)])


class _Shelf:
    """Answers requests about the runs of one library."""

    def __init__(self, root: Path) -> None:
        self._library, self._opened, self._pages = Library(root), OpenedRuns(), Pages()

    def page(self, answer: Callable[[Request], Response]) -> Callable[[Request], object]:
        """``answer`` in a thread; what cannot be read as a page that says so."""

        async def answered(request: Request) -> Response:
            try:
                return await run_in_threadpool(answer, request)
            except _NotFound as missing:
                return HTMLResponse(self._pages.problem("Not here", str(missing)), 404)
            except KeyeloopError as error:
                return HTMLResponse(self._pages.problem("This run cannot be read", str(error)), 500)

        return answered

    def list(self, request: Request) -> Response:
        """All runs, or the one there is."""
        if self._library.single and not request.query_params:
            return RedirectResponse(run_url(self._library.root.name), 302)
        return HTMLResponse(self._pages.list(self._library, Filter.read(request.query_params)), headers=FRESH)

    def rows(self, request: Request) -> Response:
        """The list's rows as they are now."""
        text = self._pages.list(self._library, Filter.read(request.query_params), only_rows=True)
        return HTMLResponse(text, headers=FRESH)

    def run(self, request: Request) -> Response:
        """One run."""
        opened = self._open(request)
        base = run_url(opened.name) + "/-/source/"
        sources = {
            source.name: base + source.name
            for source in opened.run.start.inputs
            if may_be_found(source, opened.run.folder, self._library.root)
        }
        return HTMLResponse(self._pages.run(opened, sources), headers=FRESH)

    def steps(self, request: Request) -> Response:
        """Some steps of a run."""
        count = min(_number(request, "count") or CHUNK_STEPS, MOST_STEPS)
        text = self._pages.steps(self._open(request), _number(request, "first"), count)
        return HTMLResponse(text, headers=FRESH)

    def tail(self, request: Request) -> Response:
        """What has changed behind event ``after``: the steps from the one on that was last, head, strips that have."""
        opened, after = self._open(request), _number(request, "after")
        if opened.last_seq <= after and opened.running == (request.query_params.get("running") == "1"):
            return Response(status_code=204, headers=FRESH)
        steps = opened.steps
        news = opened.run.events[after + 1 :]
        turns = {event.turn for event in news if hasattr(event, "turn")}
        first = next((place for place, step in enumerate(steps) if step.turn in turns), len(steps))
        return JSONResponse(
            {
                "seq": opened.last_seq,
                "running": opened.running,
                "ended": opened.run.end is not None,
                "head": self._pages.head(opened),
                "strips": self._pages.strips(opened) if _moves_strips(opened, news) else None,
                "steps": self._pages.steps(opened, first, len(steps) - first),
            },
            headers=FRESH,
        )

    def search(self, request: Request) -> Response:
        """Places that hold some words."""
        words = request.query_params.get("q", "")[:200]
        return HTMLResponse(self._pages.found(self._open(request), words), headers=FRESH)

    def compare(self, request: Request) -> Response:
        """Two runs beside each other."""
        names = request.query_params.getlist("run")
        if len(names) != 2:
            raise _NotFound("Choose two runs in the list to compare them.")
        left, right = (self._open_named(name) for name in names)
        return HTMLResponse(self._pages.comparison(left, right), headers=FRESH)

    def event(self, request: Request) -> Response:
        """One event as it is recorded."""
        opened, seq = self._open(request), int(request.path_params["seq"])
        if seq >= len(opened.run.events):
            raise _NotFound(f"The run has no event {seq}.")
        line = json.loads(event_to_line(opened.run.events[seq]))
        return Response(json.dumps(line, indent=1, ensure_ascii=False), media_type="application/json", headers=FRESH)

    def media(self, request: Request) -> Response:
        """One picture of a run, whole or small."""
        opened, sha256 = self._open(request), request.path_params["sha256"]
        if sha256 not in opened.media:
            raise _NotFound("The run has no such picture.")
        data = opened.run.media.read(sha256)
        if request.query_params.get("w") == str(SMALL_PX):
            return Response(small_picture(data, SMALL_PX), media_type="image/jpeg", headers=FOREVER)
        return Response(data, media_type=read_header(data).mime, headers=FOREVER)

    def source(self, request: Request) -> Response:
        """The file of a source, in the pieces that a player asks for."""
        opened, name = self._open(request), request.path_params["source"]
        source = next((source for source in opened.run.start.inputs if source.name == name), None)
        found = source and find_source(source, opened.run.folder, self._library.root)
        if not found:
            raise _NotFound("That file is not where it was, or has changed since the run.")
        path, kind = found
        return FileResponse(path, media_type=kind, headers=FRESH)

    async def static(self, request: Request) -> Response:
        """Style, script, picture of the tab."""
        name = request.path_params["name"]
        if name not in STATIC:
            return HTMLResponse(self._pages.problem("Not here", "There is no such file."), 404)
        return Response(static_file(name), media_type=STATIC[name], headers=FRESH)

    def _open(self, request: Request) -> OpenedRun:
        return self._open_named(request.path_params["name"])

    def _open_named(self, name: str) -> OpenedRun:
        folder = self._library.folder(name)
        if folder is None:
            raise _NotFound(f"There is no run {name} in {self._library.root}.")
        return self._opened.open(name, folder)


class _NotFound(Exception):
    """Nothing is at an address."""


def static_file(name: str) -> bytes:
    """A file that every page needs."""
    return (files("keyeloop.agent.viewer") / "static" / name).read_bytes()


def _moves_strips(opened: OpenedRun, news: Sequence[Event]) -> bool:
    """Whether some of the news are pictures, or citations."""
    seqs = {event.seq for event in news}
    return any(isinstance(event, RunEnded) for event in news) or any(look.group in seqs for look in opened.looks)


def _number(request: Request, name: str) -> int:
    text = request.query_params.get(name, "")
    return int(text) if text.isdecimal() and len(text) < 10 else 0
