"""Our tools for any client of the protocol: over stdin and stdout, or streamable HTTP."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keyeloop.runtime.content import ToolResult, ToolSpec
from keyeloop.runtime.errors import ConfigError
from keyeloop.runtime.media import MediaStore
from keyeloop.tools.base import Progress
from keyeloop.tools.mcp.content import to_blocks

if TYPE_CHECKING:
    from mcp.server import Server
    from mcp.server.context import ServerRequestContext
    from mcp.types import CallToolRequestParams, CallToolResult, ListToolsResult, PaginatedRequestParams
    from starlette.types import ASGIApp, Receive, Scope, Send

PATH = "/mcp"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
Answer = Callable[[str, Mapping[str, Any], Callable[[Progress], None]], Awaitable[ToolResult]]
"""Makes a call by name and arguments; what goes wrong is in its result."""


def build_server(
    specs: Sequence[ToolSpec], answer: Answer, media: MediaStore, *, version: str, instructions: str
) -> Server[Any]:
    """A server of the protocol that lists ``specs`` and answers calls; errors are results, as the protocol wants it."""
    from mcp.server import Server
    from mcp.types import CallToolResult, ListToolsResult, Tool

    tools = [Tool(name=spec.name, description=spec.description, input_schema=_schema(spec)) for spec in specs]

    async def listed(context: ServerRequestContext[Any], params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=tools)

    async def called(context: ServerRequestContext[Any], params: CallToolRequestParams) -> CallToolResult:
        told = _Telling(context)
        try:
            result = await answer(params.name, params.arguments or {}, told)
        finally:
            await told.close()
        blocks = await asyncio.to_thread(to_blocks, result.parts, media)
        return CallToolResult(content=blocks, is_error=result.error)

    return Server("keyeloop", version=version, instructions=instructions, on_list_tools=listed, on_call_tool=called)


async def serve_stdio(server: Server[Any]) -> None:
    """Serve the program at the other end of stdin and stdout, until it leaves; prints go to stderr meanwhile."""
    from mcp import stdio_server

    async with stdio_server() as (reading, writing):
        await server.run(reading, writing, server.create_initialization_options())


async def serve_http(
    server: Server[Any], host: str, port: int, key: str | None, on_ready: Callable[[str], None]
) -> None:
    """Serve clients at ``http://host:port/mcp`` until cancelled; ``on_ready`` is told the address, with its real port.

    With a ``key`` every request must bring it (``Authorization: Bearer ...``). On loopback, requests of web pages of
    others are refused. Raises ConfigError for another host without a key, OSError for a port that is taken.
    """
    import uvicorn
    from mcp.server.transport_security import TransportSecuritySettings

    if host not in LOOPBACK and key is None:
        raise ConfigError(f"{host} can be reached by others: set KEYELOOP_API_KEY, which clients then have to send")
    outside = TransportSecuritySettings(enable_dns_rebinding_protection=False)  # the key keeps others out
    app: ASGIApp = server.streamable_http_app(
        streamable_http_path=PATH, host=host, transport_security=None if host in LOOPBACK else outside
    )
    if key is not None:
        app = _keyed(app, key)
    config = uvicorn.Config(app, host=host, port=port, log_level="warning", ws="none")
    listening = config.bind_socket()
    shown = f"[{host}]" if ":" in host else host
    serving = uvicorn.Server(config)
    on_ready(f"http://{shown}:{listening.getsockname()[1]}{PATH}")
    try:
        await serving.serve(sockets=[listening])
    finally:
        listening.close()


class _Telling:
    """Passes progress on to the client, from any thread, in order."""

    def __init__(self, context: ServerRequestContext[Any]) -> None:
        self._session, self._loop = context.session, asyncio.get_running_loop()
        self._queue: asyncio.Queue[Progress | None] = asyncio.Queue()
        self._task = asyncio.create_task(self._pass_on())

    def __call__(self, progress: Progress) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, progress)

    async def close(self) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, None)
        await self._task

    async def _pass_on(self) -> None:
        steps = 0
        while (progress := await self._queue.get()) is not None:
            steps += 1
            done = float(steps) if progress.done is None else progress.done
            await self._session.report_progress(done, progress.total, progress.text or None)


def _keyed(app: ASGIApp, key: str) -> ASGIApp:
    """The app behind a key."""
    from starlette.responses import PlainTextResponse

    expected = f"Bearer {key}".encode()

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
            if not hmac.compare_digest(given, expected):
                await PlainTextResponse("a key is needed: Authorization: Bearer ...", 401)(scope, receive, send)
                return
        await app(scope, receive, send)

    return guarded


def _schema(spec: ToolSpec) -> dict[str, Any]:
    return {"type": "object", **spec.parameters}
