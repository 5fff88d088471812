"""From a started process to a server that answers, and that attends sparsely."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from keyeloop.model_backend.sglang.serve.process import ServerProcess
from keyeloop.runtime.errors import BackendError

POLL_S = 0.5
ANSWER_S = 60.0
"""For one answer of a server that is up; its health check makes a token."""
READY_WITHIN_S = 3600.0
"""62 GB from a slow disk take long; whoever waits sees the server's last line, and can stop it."""
FIELD = "keyeloop"
"""The plugin's own part of what ``/server_info`` says of every scheduler."""
_CURES = (
    ("out of memory", "give a smaller --context-length or --memory-share, or --quantization fp8"),
    ("not enough memory", "give a smaller --context-length, or a larger --memory-share"),
    ("address already in use", "something took the port meanwhile: give another --port"),
    ("no module named 'sgl_kernel'", "on a CPU, use the environment of docs/serving.md, On a CPU"),
    ("undefined symbol", "sglang-kernel and torch do not fit each other: see docs/serving.md, What was run where"),
)


_DATED = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d([^]]*)\] (.+)")


@dataclass(frozen=True)
class SparseState:
    """What the plugin says of a running server's attention."""

    indexer: str
    """``exact`` or ``fp8``."""
    kernels: str
    """Which code computes it, such as ``triton`` or ``torch``."""


def wait_ready(
    server: ServerProcess,
    base: str,
    key: str,
    progress: Callable[[float, str], None],
    *,
    within_s: float = READY_WITHIN_S,
) -> float:
    """Wait until ``base``'s health check passes; the seconds it took.

    ``progress`` gets the seconds so far and the server's last line, twice a second. Raises BackendError with the
    server's last words, and a cure where they are known, when it ends first or takes too long.
    """
    began_s = time.monotonic()
    with client(base, key) as http:
        while True:
            waited_s = time.monotonic() - began_s
            if _healthy(http):
                return waited_s
            code = server.ended(POLL_S)
            if code is not None:
                raise BackendError(last_words(server, key, f"the server ended with code {code} before it was ready"))
            if waited_s > within_s:
                raise BackendError(last_words(server, key, f"the server was not ready after {within_s:,.0f} s"))
            progress(waited_s, _doing(server).replace(key, "..."))


def check_sparse(base: str, key: str, indexer: str) -> SparseState:
    """What the plugin says. Raises BackendError where it says nothing, or that attention is dense or of another mode.

    SGLang only logs a plugin's failure, so a server that answers may still be one without it.
    """
    try:
        with client(base, key) as http:
            reply = http.get("/server_info", timeout=ANSWER_S)
            reply.raise_for_status()
            told: Any = reply.json()
    except (httpx.HTTPError, ValueError) as error:
        raise BackendError(f"{base}/server_info cannot be read: {error}; see docs/serving.md") from None
    states = told.get("internal_states") if isinstance(told, dict) else None
    found: list[Any] = [state.get(FIELD) if isinstance(state, dict) else None for state in states or ()]
    if not found or not all(isinstance(one, dict) for one in found):
        raise BackendError("the server runs without keyeloop's plugin: its /server_info does not name it; its log has "
                           "the plugin's own error")  # fmt: skip
    for one in found:
        if one.get("sparse") is not True or one.get("indexer") != indexer:
            raise BackendError(f"the server's attention is not what was asked for (sparse, {indexer}): {one}")
    return SparseState(indexer, str(found[0].get("kernels")))


def last_words(server: ServerProcess, key: str, what: str) -> str:
    """``what``, the end of the server's log, and a cure where one is known. Never the key, which SGLang logs."""
    lines = server.last_lines(200)
    text = "\n".join(lines).lower()
    cure = next((cure for sign, cure in _CURES if sign in text), "its last lines tell why")
    shown = "\n".join(f"  {line.replace(key, '...')}" for line in lines[-12:])
    return f"{what}: {cure}; all of it is in {server.log}\n{shown}"


def client(base: str, key: str) -> httpx.Client:
    """A client of this machine's server; no proxy is asked."""
    return httpx.Client(
        base_url=base, headers={"Authorization": f"Bearer {key}"}, timeout=ANSWER_S, trust_env=False
    )  # fmt: skip


def _doing(server: ServerProcess) -> str:
    """The server's last dated line without its date, which tells more than a warning that a library wrote behind it."""
    lines = server.last_lines(50)
    return next((said[2] for line in reversed(lines) if (said := _DATED.match(line))), "".join(lines[-1:]))


def _healthy(http: httpx.Client) -> bool:
    try:
        return http.get("/health").status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
