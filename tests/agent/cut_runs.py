"""Runs of many kinds, and copies of them that were cut off, for tests of going on and playing again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from keyeloop.model_backend.base import Delta, Reply, Request
from keyeloop.model_backend.scripted import Script, ScriptedBackend, call, calls
from keyeloop.runtime.budget import Limits
from keyeloop.runtime.journal import read_journal, steady
from keyeloop.runtime.media import MediaStore


class Steadfast(ScriptedBackend):
    """Says the same at the same place of a conversation, whichever process asks; it tells of no cache."""

    def __init__(self, script: Sequence[Script], **options: Any) -> None:
        self.asked: list[int] = []

        def say(request: Request) -> Any:
            place = sum(message.role == "assistant" for message in request.messages)
            self.asked.append(place)
            line = script[place]
            return line(request) if callable(line) else line

        super().__init__([say] * 60, **options)

    async def generate(
        self, request: Request, media: MediaStore, on_delta: Callable[[Delta], None] | None = None
    ) -> Reply:
        reply = await super().generate(request, media, on_delta)
        return replace(reply, usage=replace(reply.usage, cached_tokens=0))


def told(folder: Path) -> list[Any]:
    """What a run records, without times, ids, numbers and marks of going on."""
    return [{**steady(one), "seq": None} for one in read_journal(folder) if one.kind != "state_rebuilt"]


def cut(whole: Path, lines: int, into: Path, torn: bytes = b"") -> Path:
    """A copy of a run that was killed behind so many lines."""
    folder = into / f"cut-{lines}"
    (folder / "media").mkdir(parents=True)
    kept = (whole / "journal.jsonl").read_bytes().splitlines(keepends=True)[:lines]
    (folder / "journal.jsonl").write_bytes(b"".join(kept) + torn)
    for path in (whole / "media").rglob("*"):
        if path.is_file():
            target = folder / "media" / path.parent.name / path.name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
    return folder


LOOKS = [call("look", at_s=second) for second in range(6)]
CASES: dict[str, tuple[list[Script], dict[str, Any], dict[str, Any]]] = {
    "calls": (
        [
            calls(("look", {"at_s": 1}), ("add", {"a": 1, "b": 2}), ("add", {"a": "x"}), reasoning="Both."),
            calls(("nobody", {}), ("look", {"at_s": 2})),
            call("add", a=3, b=4),
            "7 [f1] [f2 100,100,200,200]",
        ],
        {},
        {},
    ),
    "guards": ([call("add", a=1, b=1)] * 9, {}, {}),
    "empty replies": (["", "", "", "", "5"], {}, {}),
    "turns": ([*LOOKS, "6"], {"limits": Limits(turns=3)}, {}),
    "calls limit": ([calls(("add", {"a": 1, "b": 2}), ("add", {"a": 1, "b": 3}), ("look", {"at_s": 1})), "3"],
                    {"limits": Limits(tool_calls=2)}, {}),
    "evictions": ([*LOOKS, *LOOKS, "12 [f1]"], {}, {"context_tokens": 1600}),
}  # fmt: skip
