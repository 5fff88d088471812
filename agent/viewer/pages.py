"""Every page and piece of a page as text: what a template is given."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from jinja2 import Environment
from markupsafe import Markup, escape

from keyeloop.agent.viewer.comparison import lay_beside
from keyeloop.agent.viewer.environment import build_environment
from keyeloop.agent.viewer.filters import ORDERS, PAGE_ROWS, Filter, Totals
from keyeloop.agent.viewer.library import Library
from keyeloop.agent.viewer.looks import Look
from keyeloop.agent.viewer.opened import OpenedRun, is_written
from keyeloop.agent.viewer.searching import search
from keyeloop.agent.viewer.timeline import CHUNK_STEPS, Shown, StepView, shown, step_views
from keyeloop.runtime.content import Image, MediaRef, Text, images_of
from keyeloop.runtime.wire import MessageWire, parts_from_wire

SMALL_PX = 320
"""Width of a picture where it is shown small."""


@dataclass(frozen=True)
class Chunk:
    """Steps that come together."""

    first: int
    """Place of its first step, counted from 0."""
    turns: tuple[int, int]
    """Number of its first and of its last step."""
    views: list[StepView] | None
    """None where they come later."""


@dataclass(frozen=True)
class Opening:
    """A message that a run began with."""

    role: str
    text: Shown
    pictures: tuple[Image, ...]


def run_url(name: str) -> str:
    """Address of a run's page."""
    return "/run/" + quote(name)


class Pages:
    """Fills the templates for a server."""

    def __init__(self, environment: Environment | None = None) -> None:
        self._environment = environment or build_environment()
        for name in self._environment.list_templates(extensions=["html"]):
            self._environment.get_template(name)  # compiled now, not while a person waits

    def render(self, template: str, **context: Any) -> str:
        """One template; ``home`` is known to all."""
        return self._environment.get_template(template).render({"home": "/", **context})

    def list(self, library: Library, asked: Filter, *, only_rows: bool = False) -> str:
        """The list of runs, or what of it changes while runs go on."""
        every = library.rows()
        rows = asked.apply(every)
        pages = max(1, -(-len(rows) // PAGE_ROWS))
        page = min(asked.page, pages)
        visible = rows[(page - 1) * PAGE_ROWS : page * PAGE_ROWS]
        open_rows = [row.id for row in visible if row.status == "in flight"]

        def values(found: set[str]) -> list[tuple[str, str]]:
            return [(value, value) for value in sorted(found)]

        return self.render(
            "rows.html" if only_rows else "list.html",
            asked=asked,
            rows=visible,
            any=bool(every),
            pages=pages,
            totals=Totals.of(rows),
            running={name for name in open_rows if is_written(library.root if library.single else library.root / name)},
            run_url=run_url,
            root=str(library.root),
            root_name=library.root.name,
            refresh="/rows?" + asked.query(asked.page),
            choices=(
                ("status", "any status", values({row.status for row in every}), asked.status),
                ("source", "any source", values({name for row in every for name in row.sources}), asked.source),
                ("model", "any model", values({row.run.model for row in every if row.run.model}), asked.model),
                ("order", "order", [(name, words) for name, (words, _) in ORDERS.items()], asked.order),
            ),
        )

    def run(self, opened: OpenedRun, sources: Mapping[str, str]) -> str:
        """The page of a run; ``sources`` gives the address of each source's file."""
        return self.render("run.html", **run_context(opened, sources, all_steps=False), **_served(opened))

    def steps(self, opened: OpenedRun, first: int, count: int = CHUNK_STEPS) -> str:
        """Some steps."""
        return self.render("steps.html", views=step_views(opened, first, count), **_parts(opened), **_served(opened))

    def head(self, opened: OpenedRun) -> str:
        """Question, answer and totals."""
        return self.render("head.html", run=opened.run, running=opened.running, looks=opened.looks, **_served(opened))

    def strips(self, opened: OpenedRun) -> str:
        """Where it looked."""
        return self.render("strip.html", strips=opened.strips, **_served(opened))

    def found(self, opened: OpenedRun, words: str) -> str:
        """The places that hold ``words``."""
        hits, more = search(opened.run, words)
        return self.render("found.html", hits=hits, more=more, words=words)

    def comparison(self, left: OpenedRun, right: OpenedRun) -> str:
        """Two runs beside each other."""
        sides = []
        for opened, prefix in ((left, "left-"), (right, "right-")):
            given = {**_parts(opened), **_served(opened), "prefix": prefix}

            def step(view: StepView, given: dict[str, Any] = given) -> Markup:
                return Markup(self.render("steps.html", views=[view], **given))

            sides.append({"opened": opened, "step": step, "picture": given["picture"], "url": run_url(opened.name)})
        return self.render("compare.html", sides=sides, found=lay_beside(left, right), event_url=None)

    def problem(self, title: str, text: str) -> str:
        """A page that says what is wrong."""
        return self.render("problem.html", title=title, text=text)


def run_context(opened: OpenedRun, sources: Mapping[str, str], *, all_steps: bool) -> dict[str, Any]:
    """What the page of a run is filled with, but for where its pictures are."""
    run = opened.run
    settings = {"config": run.start.config, "versions": run.start.versions}
    return {
        "run": run,
        "name": opened.name,
        "running": opened.running,
        "live": run.end is None,
        "looks": opened.looks,
        "strips": opened.strips,
        "last_seq": opened.last_seq,
        "opening": [_opening(message) for message in run.start.messages],
        "settings": json.dumps(settings, indent=1, ensure_ascii=False, default=str),
        "sources": {
            source.name: {
                "kind": source.kind,
                "width": source.width,
                "height": source.height,
                "url": sources.get(source.name, ""),
            }
            for source in run.start.inputs
        },
        "chunks": _chunks(opened, all_steps),
        **_parts(opened),
    }


def _chunks(opened: OpenedRun, all_steps: bool) -> list[Chunk]:
    steps = opened.steps
    return [
        Chunk(
            first,
            (steps[first].turn, steps[min(first + CHUNK_STEPS, len(steps)) - 1].turn),
            step_views(opened, first) if all_steps or first == 0 else None,
        )
        for first in range(0, len(steps), CHUNK_STEPS)
    ]


def _parts(opened: OpenedRun) -> dict[str, Any]:
    known = {look.view.handle: look for look in opened.looks}

    def look_of(image: Image) -> Look | None:
        return known.get(image.view.handle) if image.view else None

    return {"look_of": look_of, "prefix": ""}


def _served(opened: OpenedRun) -> dict[str, Any]:
    base = run_url(opened.name) + "/-"

    def picture(ref: MediaRef, small: bool = False) -> Markup:
        url = f"{base}/media/{ref.sha256}" + (f"?w={SMALL_PX}" if small and ref.width > SMALL_PX * 1.5 else "")
        return Markup(f'src="{escape(url)}" width="{int(ref.width)}" height="{int(ref.height)}"')

    event_url: Callable[[int], str] = lambda seq: f"{base}/event/{seq}"  # noqa: E731
    return {"base": base, "media_base": f"{base}/media/", "picture": picture, "event_url": event_url}


def _opening(message: MessageWire) -> Opening:
    parts = parts_from_wire(message.parts)
    text = "\n".join(part.text for part in parts if isinstance(part, Text))
    return Opening(message.role, shown(text), tuple(image for part in parts for image in images_of(part)))
