"""Requests over HTTP: time-outs, tries with growing pauses, and nothing sent twice once a reply has begun.

Connections are kept between requests; cancelling a request closes its own. No redirect is followed and the key stands
in no text of an error.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

import httpx

from keyeloop.model_backend.served.connections import Connections
from keyeloop.model_backend.served.events import DONE, DataLines, whole
from keyeloop.model_backend.served.failures import RETRIED, Refused, Unanswered, refusal
from keyeloop.runtime.errors import BackendError, ConfigError

KEY_VARIABLE = "KEYELOOP_API_KEY"
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
TRIES = 5
LEFTOVERS_S = 0.05
"""What may follow the last event is waited for so long; it is nothing but the end of the body."""
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Timeouts:
    """Seconds that a server may take: the settings ``connect_seconds``, ``read_seconds``, ``reply_seconds``."""

    connect_s: float = 10.0
    read_s: float = 600.0
    """Between two pieces of a reply, and before the first: a long prompt is read in this time."""
    total_s: float = 3600.0
    """One reply with all its tries and pauses."""


class Collecting(Protocol):
    """A reply that is being put together from the events of a stream."""

    @property
    def began(self) -> bool:
        """Whether anything of the reply itself has come: from then on the request is never sent again."""

    @property
    def complete(self) -> bool:
        """Whether the server has said how the reply ended."""

    def take(self, data: str) -> None:
        """Take the data of one event, or a whole reply. BackendError for what the protocol does not know.

        :class:`Unanswered` where the same request may be sent again.
        """


Collected = TypeVar("Collected", bound=Collecting)


class Sender:
    """Sends to one server."""

    def __init__(
        self, base: str, key: str | None, timeouts: Timeouts, tries: int, *, loopback: bool, kind: str = "chat endpoint"
    ) -> None:
        """``base`` is the address below which paths are asked, ``kind`` what should be there.

        ConfigError for a key that cannot stand in a header.
        """
        if key is not None and (not key.isascii() or not key.isprintable()):
            raise ConfigError("KEYELOOP_API_KEY holds characters that no key has: a line break, or not ASCII")
        self.where = base
        self.secrets: tuple[str, ...] = () if key is None else (key,)
        """What no record may hold."""
        self._key, self._kind = key, kind
        self._timeouts, self._tries = timeouts, tries
        self._connections = Connections(
            tls=base.startswith("https:"), proxies=not loopback, connect_s=timeouts.connect_s, read_s=timeouts.read_s
        )

    async def get(self, path: str, *, beside: str = "") -> bytes:
        """The body at ``path`` below the server's address, ``beside`` cut off its end.

        BackendError, Refused with its status.
        """
        base = self.where.removesuffix(beside)

        async def once() -> bytes:
            async with self._answered("GET", base + path, b"") as response:
                return await whole(response.aiter_bytes(), self.where, self._kind)

        return await self._tried(once, lambda: False)

    async def post(
        self, path: str, body: bytes, begin: Callable[[], Collected], retried: Collection[int] = RETRIED
    ) -> Collected:
        """Post a request and collect its reply, anew by ``begin`` for every try.

        A status among ``retried`` is worth another try.

        Raises BackendError when all tries are used up, the server refuses (:class:`Refused`), the reply breaks off or
        time runs out, ContextOverflow for a request that is too long.
        """
        collected = begin()

        async def once() -> Collected:
            nonlocal collected
            collected = begin()
            async with self._answered("POST", self.where + path, body, retried) as response:
                await self._collect(response, collected)
            return collected

        return await self._tried(once, lambda: collected.began)

    async def close(self) -> None:
        """Close the connections that this event loop keeps; idempotent."""
        await self._connections.close()

    async def _collect(self, response: httpx.Response, collected: Collecting) -> None:
        if "text/event-stream" not in response.headers.get("content-type", ""):
            found = await whole(response.aiter_bytes(), self.where, self._kind)
            collected.take(found.decode("utf-8", "replace"))
            if not collected.complete:
                raise BackendError(f"{self.where} sent a completion without a reply; is it a {self._kind}?")
            return
        pieces = response.aiter_bytes()
        if not await self._read(pieces, collected):
            if not collected.complete:
                raise httpx.RemoteProtocolError("the stream ended before the reply did")
            return
        if not collected.began and not collected.complete:
            raise Unanswered(BackendError(f"{self.where} ended its stream without a reply"))
        with suppress(TimeoutError, httpx.TransportError):  # a connection is kept once all of its reply was read
            async with asyncio.timeout(LEFTOVERS_S):
                async for _ in pieces:
                    pass

    async def _read(self, pieces: AsyncIterator[bytes], collected: Collecting) -> bool:
        """Take events until one says that there are no more; False where the stream ended without it."""
        lines = DataLines(self.where, self._kind)
        async for piece in pieces:
            for data in lines.feed(piece):
                if data.startswith(DONE):
                    return True
                collected.take(data)
        for data in lines.finish():
            if data.startswith(DONE):
                return True
            collected.take(data)
        return False

    async def _tried(self, once: Callable[[], Awaitable[Answer]], began: Callable[[], bool]) -> Answer:
        try:
            async with asyncio.timeout(self._timeouts.total_s) as limit:
                for number in range(1, self._tries + 1):
                    try:
                        return await once()
                    except Unanswered as failure:
                        if began():
                            raise failure.problem from None
                        await self._pause(failure, number, limit.when())
                    except httpx.ReadTimeout:
                        raise self._problem(f"sent nothing for {self._timeouts.read_s:g} s", began()) from None
                    except httpx.TransportError as error:
                        problem = self._problem(_words(error), began())
                        if began():
                            raise problem from None
                        await self._pause(Unanswered(problem), number, limit.when())
        except TimeoutError:
            if not limit.expired():
                raise
            raise self._problem(f"took more than {self._timeouts.total_s:g} s in all", began()) from None
        except BackendError as error:
            raise self._without_key(error) from None
        raise AssertionError("the last try returns or raises")

    async def _pause(self, failure: Unanswered, number: int, deadline: float | None) -> None:
        """Wait before the next try; raise the failure's problem where there is none, or it would come too late."""
        if number == self._tries:
            tried = f" (tried {number} times)" if number > 1 else ""
            problem = failure.problem
            text = f"{problem}{tried}"
            raise Refused(text, problem.status) if isinstance(problem, Refused) else BackendError(text)
        wait_s = failure.wait_s
        if wait_s is None:
            wait_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (number - 1)) * random.uniform(0.5, 1.0)
        elif deadline is not None and asyncio.get_running_loop().time() + wait_s > deadline:
            raise BackendError(f"{failure.problem}; it asks to wait {wait_s:g} s, longer than is left for this reply")
        await asyncio.sleep(wait_s)

    @asynccontextmanager
    async def _answered(
        self, method: str, url: str, body: bytes, retried: Collection[int] = RETRIED
    ) -> AsyncIterator[httpx.Response]:
        """A response with a good status, its body still to be read."""
        headers = {}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        if body:
            headers |= {"Content-Type": "application/json", "Accept": "text/event-stream, application/json"}
        async with self._connections.answered(method, url, headers, body) as response:
            if not response.is_success:
                told = (await whole(response.aiter_bytes(), self.where, self._kind)).decode("utf-8", "replace")
                raise refusal(self.where, response.status_code, told, response.headers, retried)
            yield response

    def _problem(self, what: str, began: bool) -> BackendError:
        after = "; the reply had begun, so it was not asked again" if began else ""
        return BackendError(f"{self.where} {what}{after}")

    def _without_key(self, error: BackendError) -> BackendError:
        if self._key and self._key in str(error):
            text = str(error).replace(self._key, "***")
            return Refused(text, error.status) if isinstance(error, Refused) else type(error)(text)
        return error


def given_key(key: str | None) -> str | None:
    """The key that was given, else that of the environment; None for neither, or an empty one."""
    return (os.environ.get(KEY_VARIABLE, "") if key is None else key).strip() or None


def _words(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.ConnectTimeout):
        return "did not take a connection in time: is the server running, and the port right?"
    if isinstance(error, httpx.ConnectError):
        return f"cannot be reached ({error}): is the server running, and the port right?"
    return f"broke the connection ({str(error) or type(error).__name__})"
