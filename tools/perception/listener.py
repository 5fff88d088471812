"""Who understands speech: a protocol, so that any engine can."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from keyeloop.tools.video.sound import Samples


@dataclass(frozen=True)
class Heard:
    """Words that were said, and when, in seconds from the first sample."""

    start_s: float
    end_s: float
    text: str
    confidence: float
    """From 0 to 1."""


class Listener(Protocol):
    """Turns speech into text."""

    def listen(self, sound: Samples, language: str | None) -> Iterable[Heard]:
        """What is said in ``sound``: one channel of float32 from -1 to 1, 16,000 samples a second; in order of time.

        ``language`` is a code such as ``en``; None leaves it to the engine. Called and iterated in a thread, one call
        at a time; where it yields as it goes, the call can end early with what was heard until then. Raises ToolError
        for what the model could do better, such as a language that it does not know.
        """
