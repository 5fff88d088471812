"""Asking a provider over HTTP: a few tries, pauses as long as it asks for, no redirects, no key in any error."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from keyeloop.tools.pages.fetching import trust
from keyeloop.tools.search.providers.base import ProviderFailed

TRIES = 3
TIMEOUT_S = 15.0
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0
"""Where a provider asks for more, the next one is asked instead."""
MAX_BYTES = 5_000_000
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_REASONS = {
    400: "could not read the request",
    401: "refused the key",
    402: "says that the account has no credit left",
    403: "refused the key",
    404: "has no search at this address",
    429: "has had too many requests",
    432: "says that the plan's limit is reached",
    433: "says that the plan's limit is reached",
}


@dataclass(frozen=True)
class Question:
    """One request: ``params`` for the address, or ``data`` as a JSON body, which makes it a POST."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    params: Mapping[str, str] | None = None
    data: Mapping[str, Any] | None = None


async def ask_json(
    question: Question, *, reasons: Mapping[int, str] | None = None, tries: int = TRIES, timeout_s: float = TIMEOUT_S
) -> dict[str, Any]:
    """The JSON object that comes back. Raises ProviderFailed, with what the provider said where it said something.

    A request is repeated after 408, 425, 429, 5xx and lost connections, ``Retry-After`` honoured up to
    ``LONGEST_PAUSE_S``; ``reasons`` tell what a status means at this provider.
    """
    said = {**_REASONS, **(reasons or {})}
    async with httpx.AsyncClient(verify=trust(), timeout=timeout_s, follow_redirects=False) as client:
        for attempt in range(1, tries + 1):
            try:
                status, headers, body = await _once(client, question)
            except (httpx.TransportError, httpx.InvalidURL) as error:
                failure, pause_s = f"could not be reached ({type(error).__name__})", _pause_s(attempt)
                if attempt == tries or isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL):
                    raise ProviderFailed(failure) from None
                await asyncio.sleep(pause_s)
                continue
            if status == 200:
                return _object(body)
            failure = f"{said.get(status, f'answered {status}')}{_detail(body, question)}"
            asked_s = _asked_pause_s(headers.get("retry-after"))
            if status not in RETRIED or attempt == tries:
                raise ProviderFailed(failure)
            if asked_s is not None and asked_s > LONGEST_PAUSE_S:
                raise ProviderFailed(f"{failure}; it asks to wait {asked_s:.0f} s")
            await asyncio.sleep(_pause_s(attempt) if asked_s is None else asked_s)
    raise AssertionError("the last try returns or raises")


async def _once(client: httpx.AsyncClient, question: Question) -> tuple[int, httpx.Headers, bytes]:
    method = "GET" if question.data is None else "POST"
    headers = {"Accept": "application/json", **question.headers}
    async with client.stream(
        method, question.url, headers=headers, params=question.params, json=question.data
    ) as response:
        body = bytearray()
        async for piece in response.aiter_bytes(65_536):
            body += piece
            if len(body) > MAX_BYTES:
                raise ProviderFailed(f"sent more than {MAX_BYTES / 1e6:g} MB")
        return response.status_code, response.headers, bytes(body)


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise ProviderFailed("sent no JSON: is its address right?") from None
    if not isinstance(found, dict):
        raise ProviderFailed("sent JSON that is no object")
    return found


def _detail(body: bytes, question: Question) -> str:
    """What the provider said of the error, with anything that was sent as a header's value taken out."""
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    for name in ("error", "detail", "message"):
        while isinstance(found, dict) and name in found:
            found = found[name]
    if isinstance(found, dict):
        found = found.get("error") or found.get("detail") or found.get("code")
    if not isinstance(found, str):
        return ""
    for value in question.headers.values():
        for secret in (value, value.removeprefix("Bearer ")):
            found = found.replace(secret, "...") if len(secret) > 3 else found
    return f": {' '.join(found.split())[:160]}"


def _asked_pause_s(text: str | None) -> float | None:
    """Seconds of a ``Retry-After``, in either of its forms (RFC 9110, section 10.2.3)."""
    if text is None:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _pause_s(attempt: int) -> float:
    return FIRST_PAUSE_S * 2.0 ** (attempt - 1) * random.uniform(0.75, 1.25)
