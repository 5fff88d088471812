"""What a list of runs tells of one, read from its first line and its last few: a long run costs no more than a short."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyeloop.runtime.citations import strip_citations
from keyeloop.runtime.journal import JOURNAL

TAIL_BYTES = 1 << 14
"""The first look at a journal's end; it is doubled until a whole line is in it."""
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Summary:
    """One row of the list. Tokens, duration and status are those of the run's last question."""

    id: str
    """The run's folder below the folder of runs, with ``/`` between its parts."""
    question: str
    model: str
    sources: tuple[str, ...]
    """File names of its inputs."""
    started_s: float
    """Seconds since the epoch."""
    status: str
    """As in ``run_end``; ``in flight`` where there is none, ``unreadable`` where the record makes no sense."""
    answer: str = ""
    """Without its citations."""
    duration_s: float = 0.0
    steps: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    problem: str = ""
    """Why it is unreadable."""


def summarise(folder: Path, name: str) -> Summary:
    """The row of the run in ``folder``; never raises for what is in its journal."""
    path = folder / JOURNAL
    try:
        with path.open("rb") as file:
            first = json.loads(file.readline())
            tail = _last_events(file.seek(0, 2), path)
        return _summary(name, first, tail)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        started_s = path.stat().st_mtime if path.exists() else 0.0
        return Summary(name, "", "", (), started_s, UNREADABLE, problem=f"{type(error).__name__}: {error}")


def _summary(name: str, first: Mapping[str, Any], tail: list[Mapping[str, Any]]) -> Summary:
    if first["kind"] != "run_start":
        raise ValueError(f"its first line is {first['kind']}, not run_start")
    last = tail[-1] if tail else first
    ended = last["kind"] == "run_end"
    usage = last["usage"] if ended else {}
    question = next((str(event["question"]) for event in reversed(tail) if event["kind"] == "question"), None)
    return Summary(
        id=name,
        question=question or str(first["question"]),
        model=str(first["model"]),
        sources=tuple(Path(str(source["path"])).name for source in first.get("inputs", ())),
        started_s=float(first["time_s"]),
        status=str(last["status"]) if ended else "in flight",
        answer=strip_citations(str(last.get("answer", ""))),
        duration_s=float(last["duration_s"]) if ended else float(last["time_s"]) - float(first["time_s"]),
        steps=max((int(event.get("turn", 0)) for event in tail), default=0),
        input_tokens=int(usage.get("input_tokens", 0)),
        cached_tokens=int(usage.get("cached_tokens", 0)),
        output_tokens=int(usage.get("output_tokens", 0)),
        cost=usage.get("cost"),
    )


def _last_events(size: int, path: Path) -> list[Mapping[str, Any]]:
    """The whole lines at a journal's end, two of them where there are two; a torn last line is passed over."""
    length = min(size, TAIL_BYTES)
    while True:
        with path.open("rb") as file:
            file.seek(size - length)
            lines = file.read(length).split(b"\n")
        whole = lines[:-1] if length == size else lines[1:-1]
        if len(whole) >= 2 or length == size:
            return [json.loads(line) for line in whole]
        length = min(size, length * 2)
