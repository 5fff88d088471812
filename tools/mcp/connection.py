"""One open connection to a server, kept by a thread of its own, so that every event loop and none may use it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any

from keyeloop.runtime.errors import OperatorError
from keyeloop.tools.base import Progress

if TYPE_CHECKING:
    from mcp import Client
    from mcp.types import CallToolResult, Tool

OPENING_S = 60.0
CLOSING_S = 10.0
HTTP_S, STREAM_S = 30.0, 300.0
"""For connecting and sending, and between two pieces of an answer."""
MAX_PAGES = 100
"""Of a list of tools."""
_TAIL_CHARS = 600


class Connection:
    """Opens on construction, in its thread, which ends at :meth:`close` or when the server is gone.

    ``where`` is an address, or a command and its arguments. Raises OperatorError, with what the program wrote on
    stderr, where no server answers.
    """

    def __init__(
        self, where: str | Sequence[str], environment: Mapping[str, str] | None, headers: Mapping[str, str] | None
    ) -> None:
        self._where, self._environment, self._headers = where, environment, headers
        self._loop = asyncio.new_event_loop()
        self._opened: concurrent.futures.Future[tuple[Client, tuple[Tool, ...]]] = concurrent.futures.Future()
        self._task: asyncio.Task[None] | None = None
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._thread = threading.Thread(target=self._run, name="mcp connection", daemon=True)
        self._thread.start()
        try:
            self._client, self.tools = self._opened.result(OPENING_S)
        except BaseException as error:
            said = self._said()
            self.close()
            if not isinstance(error, Exception):
                raise
            late = isinstance(error, TimeoutError)
            why = f"it did not answer within {OPENING_S:g} s" if late else _innermost(error)
            raise OperatorError(
                f"no MCP server at {shown(where)}: {why}{said}; start it, or mend its command or address"
            ) from error

    async def call(self, name: str, arguments: Mapping[str, Any], report: Callable[[Progress], None]) -> CallToolResult:
        """Call a tool, from any event loop; cancelling it cancels the call at the server.

        Raises the SDK's MCPError for what the server refuses, ConnectionError where it is gone.
        """

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            report(Progress(message or "", progress, total))

        if not self._thread.is_alive():
            raise ConnectionError("the connection is closed")
        work = self._client.call_tool(name, dict(arguments), progress_callback=on_progress)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def close(self) -> None:
        """End the connection, and the program that it started; idempotent."""
        if self._thread.is_alive():
            with suppress(RuntimeError):  # it has just ended by itself
                self._loop.call_soon_threadsafe(self._end)
            self._thread.join(CLOSING_S)
        self._errors.close()

    def _end(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _run(self) -> None:
        try:
            self._task = self._loop.create_task(self._keep())
            self._loop.run_until_complete(self._task)
        except BaseException as error:  # told to whoever opens it; afterwards to whoever calls
            if not self._opened.done():
                self._opened.set_exception(error if isinstance(error, Exception) else ConnectionError(repr(error)))
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def _keep(self) -> None:
        """Open, list the tools, and stay: the SDK wants all of a connection's life in one task."""
        import httpx2
        from mcp import Client, StdioServerParameters, stdio_client
        from mcp.client.streamable_http import streamable_http_client

        async with AsyncExitStack() as stack:
            if isinstance(self._where, str):
                patience = httpx2.Timeout(HTTP_S, read=STREAM_S)
                http = await stack.enter_async_context(httpx2.AsyncClient(headers=self._headers, timeout=patience))
                transport = streamable_http_client(self._where, http_client=http)
            else:
                command, *arguments = self._where
                program = StdioServerParameters(command=command, args=arguments, env=dict(self._environment or {}))
                transport = stdio_client(program, errlog=self._errors)
            client = await stack.enter_async_context(Client(transport))
            self._opened.set_result((client, await _list_tools(client)))
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    def _said(self) -> str:
        if isinstance(self._where, str):
            return ""
        self._errors.seek(0)
        tail = " ".join(self._errors.read().split())[-_TAIL_CHARS:]
        return f"; it wrote: {tail}" if tail else ""


async def _list_tools(client: Client) -> tuple[Tool, ...]:
    found: list[Tool] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        found += page.tools
        cursor = page.next_cursor
        if not cursor:
            break
    return tuple(found)


def shown(where: str | Sequence[str]) -> str:
    """A server in words."""
    return where if isinstance(where, str) else " ".join(where)


def _innermost(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
