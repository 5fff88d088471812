"""Whether a model that is shown a video whole says to half a second when something is first seen."""

from __future__ import annotations

import re
from pathlib import Path

from keyeloop.agent.agent import Agent
from keyeloop.agent.verification.board import SHOWN_S, ProbeVideo
from keyeloop.agent.verification.looking import KNOWN_ANSWER, MOST_OUTPUT_TOKENS, WITHIN_S
from keyeloop.model_backend.base import ModelBackend, Sampling
from keyeloop.model_backend.verification.finding import Finding, judged
from keyeloop.runtime.citations import strip_citations

QUESTION = "At which second does the number {number} first appear on the board? Answer with the second alone."
_SECOND = re.compile(r"(?:(\d+):)?(\d+(?:\.\d+)?)")


async def tell(backend: ModelBackend, video: ProbeVideo, scratch: Path, runs: Path) -> Finding:
    """Ask for each number in a run of its own, without tools; the video was rendered in ``scratch``.

    Raises BackendError when the model cannot be asked.
    """
    most = min(MOST_OUTPUT_TOKENS, backend.capabilities().context_tokens // 2)
    agent = Agent(backend, (), runs=runs, sampling=Sampling(max_tokens=most))
    off, said = [], []
    for asked in video.asked:
        text = QUESTION.format(number=asked.answer)
        answer = await agent.run(text, video=scratch / "board.mp4", watch="whole")
        said.append(strip_citations(answer.text)[-40:])
        told = told_second(answer.text)
        off.append(float("inf") if told is None else abs(told - (asked.time_s - SHOWN_S)))
    near = sum(one <= WITHIN_S for one in off)
    return judged("told-live", None, 2 * near > len(off), expected=f"seconds told to within {WITHIN_S} s",
                  found=f"{near} of {len(off)} near; said {', '.join(map(repr, said))}", source=KNOWN_ANSWER,
                  change="model_backend/keye/template.py", settles=("frame-text", "template-video"))  # fmt: skip


def told_second(text: str) -> float | None:
    """The last moment that an answer names, citations aside: ``9.6``, ``9.6 s`` or ``0:09.6``."""
    found = list(_SECOND.finditer(strip_citations(text)))
    return int(found[-1][1] or 0) * 60 + float(found[-1][2]) if found else None
