"""What was answered from outside (searches, pages), kept on disk: by what was asked, with the time of the answer."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from keyeloop.runtime.clock import Clock, SystemClock
from keyeloop.runtime.errors import ToolError
from keyeloop.runtime.source import cache_folder

Mode = Literal["on", "any", "only", "off"]
"""``on`` uses answers younger than the greatest age, ``any`` answers of any age, ``only`` these and nothing else (a
replay without a network), ``off`` none and keeps none."""
MAX_AGE_S = 86_400.0
MAX_FILES = 4000
"""Where more are kept, the oldest tenth is thrown away."""


class AnswerCache:
    """A folder of answers, one file each, readable by its owner alone. Keys and values are plain JSON."""

    def __init__(
        self,
        folder: Path | None = None,
        mode: Mode = "on",
        *,
        max_age_s: float = MAX_AGE_S,
        clock: Clock | None = None,
    ) -> None:
        """``folder`` defaults to one in the user's cache folder; ``max_age_s`` counts in the mode ``on``."""
        self.mode: Mode = mode
        self._folder = folder or cache_folder() / "answers"
        self._max_age_s = max_age_s
        self._clock = clock or SystemClock()

    def get(self, key: Mapping[str, Any], what: str) -> Any:
        """The answer that is kept for ``key``, None where there is none that may be used.

        Raises ToolError, with ``what`` was asked for, where the mode is ``only`` and there is none.
        """
        if self.mode == "off":
            return None
        text = _canonical(key)
        found = None
        with suppress(OSError, ValueError):
            found = json.loads(self._file(text).read_bytes())
        if isinstance(found, dict) and found.get("key") == text and "value" in found:
            age_s = self._clock.now() - float(found.get("time", 0.0))
            if self.mode != "on" or 0 <= age_s <= self._max_age_s:
                return found["value"]
        if self.mode == "only":
            raise ToolError(f"{what} is not in the cache, and this run asks nothing else")
        return None

    def put(self, key: Mapping[str, Any], value: Any) -> None:
        """Keep an answer, in place of an older one; a full or read-only disk is no error."""
        if self.mode in ("off", "only"):
            return
        text = _canonical(key)
        data = json.dumps({"key": text, "time": self._clock.now(), "value": value}).encode()
        file = self._file(text)
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, draft = tempfile.mkstemp(dir=self._folder, prefix=".draft-")
            try:
                with os.fdopen(handle, "wb") as opened:
                    opened.write(data)
                Path(draft).replace(file)
            except BaseException:
                Path(draft).unlink(missing_ok=True)
                raise
            self._prune()

    def _file(self, text: str) -> Path:
        return self._folder / f"{hashlib.sha256(text.encode()).hexdigest()}.json"

    def _prune(self) -> None:
        names = [entry for entry in os.scandir(self._folder) if entry.name.endswith(".json")]
        if len(names) > MAX_FILES:
            for entry in sorted(names, key=lambda one: one.stat().st_mtime)[: MAX_FILES // 10]:
                Path(entry.path).unlink(missing_ok=True)


def _canonical(key: Mapping[str, Any]) -> str:
    return json.dumps(key, sort_keys=True, separators=(",", ":"))
