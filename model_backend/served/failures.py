"""What a server's refusal means: worth another try, final, or a request that is too long."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection, Mapping
from email.utils import parsedate_to_datetime

from keyeloop.runtime.errors import BackendError, ContextOverflow

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed. Every other 3xx and 4xx is final."""
SHOWN_CHARS = 300
OVERFLOW = re.compile(
    r"context[ _](length|size|window)|exceed\w*[^.]{0,60}context|maximum (input|prompt|sequence) length"
    r"|(prompt|input)( length)? (is too long|exceeds)|too many (input )?tokens|longer than the model",
    re.IGNORECASE,
)
CURES = {
    401: "set KEYELOOP_API_KEY to a key that this server takes",
    403: "this key may not use this model",
    404: "see that the address ends in /v1 and #name is one that the server lists",
    429: "wait, or lower the number of tasks at a time",
}


class Unanswered(Exception):
    """One attempt failed before anything of a reply came; the same request may be sent again."""

    def __init__(self, problem: BackendError, wait_s: float | None = None) -> None:
        super().__init__(str(problem))
        self.problem, self.wait_s = problem, wait_s


class Refused(BackendError):
    """Raised for a request that the server answered with an error, its status kept."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


def refusal(
    where: str, status: int, text: str, headers: Mapping[str, str], retried: Collection[int] = RETRIED
) -> Exception:
    """What to raise for an HTTP error: :class:`Unanswered` where its status is one of ``retried``."""
    told = message_of(text)
    if status not in (401, 403, 429) and OVERFLOW.search(told):
        return ContextOverflow(
            f"{where} says that the request is too long: {told}. Look at fewer or smaller pictures, or set "
            "context_tokens to what the server really takes"
        )
    if 300 <= status < 400:
        return Refused(f"{where} redirects (status {status}): name the address that it redirects to", status)
    cure = CURES.get(status)
    problem = Refused(f"{where} answered {status}: {told or 'nothing more'}{f'; {cure}' if cure else ''}", status)
    return Unanswered(problem, retry_after_s(headers)) if status in retried else problem


def message_of(text: str) -> str:
    """The message in an error's body, on one line and not too long."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = text
    while isinstance(found, dict):
        found = next((found[key] for key in ("error", "message", "detail") if found.get(key)), json.dumps(found))
    line = " ".join((found if isinstance(found, str) else json.dumps(found)).split())
    return line if len(line) <= SHOWN_CHARS else line[: SHOWN_CHARS - 1] + "…"


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that ``Retry-After`` asks to wait, from a number or a date; None where it says nothing readable."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if seconds == seconds else None
