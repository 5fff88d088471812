"""Tools of a server of others, for an agent of ours."""

from __future__ import annotations

import asyncio
import re
import threading
import weakref
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from keyeloop.runtime.content import Part, ToolSpec
from keyeloop.runtime.errors import ConfigError, ToolError
from keyeloop.tools.base import Progress, ToolContext
from keyeloop.tools.mcp.connection import Connection, shown
from keyeloop.tools.mcp.content import from_result
from keyeloop.tools.mcp.sdk import require_sdk
from keyeloop.tools.schema import compact
from keyeloop.tools.toolset import Toolset
from keyeloop.tools.video.frames import close_decoder

if TYPE_CHECKING:
    from mcp.types import CallToolResult
    from mcp.types import Tool as Offered

CALL_S = 120.0


class McpServer:
    """A server that speaks the Model Context Protocol: a program that is started, or an address.

    ``McpServer(["python", "server.py"])`` speaks through the program's stdin and stdout, ``McpServer("http://host/mcp")``
    over streamable HTTP. It is connected at its first use, stays so for every run of this process, is connected again
    after it was gone, and is let go of by :meth:`close`, at the end of a ``with`` block, or with the process. A started
    program gets a small environment and what ``environment`` adds; ``headers`` go with every HTTP request.
    """

    def __init__(
        self,
        where: str | Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = CALL_S,
    ) -> None:
        """``timeout_s`` is for each call. Raises ConfigError for an address that is none, or without the SDK."""
        if isinstance(where, str) and not where.startswith(("http://", "https://")):
            raise ConfigError(f"{where!r} is no address of an MCP server: write http://..., or a command as a list")
        if not where:
            raise ConfigError("an MCP server needs a command: a list such as ['python', 'server.py']")
        require_sdk()
        self.where: str | tuple[str, ...] = where if isinstance(where, str) else tuple(where)
        self._environment, self._headers, self._timeout_s = environment, headers, timeout_s
        self._opening = threading.Lock()
        self._connection: Connection | None = None
        self._letting_go: weakref.finalize[Any, Any] | None = None

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values of headers, also behind ``Bearer``, and of the added environment that are long enough to be keys."""
        values = [*(self._headers or {}).values(), *(self._environment or {}).values()]
        words = [word for value in values for word in (value, *value.split())]
        return tuple(word for word in words if len(word) >= 12 and not word.startswith("/"))

    @property
    def tools(self) -> Toolset:
        """Its tools as ours; connects where it is not. Raises OperatorError where no server answers."""
        return Toolset(McpTool(self, offered, self._timeout_s) for offered in self.connect().tools)

    def connect(self) -> Connection:
        """The open connection; blocks while it is opened. Raises OperatorError where no server answers."""
        with self._opening:
            if self._connection is None:
                opened = Connection(self.where, self._environment, self._headers)
                self._connection, self._letting_go = opened, weakref.finalize(self, opened.close)
            return self._connection

    async def call(self, name: str, arguments: Mapping[str, Any], context: ToolContext) -> CallToolResult:
        """Call one of its tools. Raises ToolError for what the server refuses or where it went away meanwhile."""
        from mcp import MCPError
        from mcp.types import CONNECTION_CLOSED

        connection = await asyncio.to_thread(self.connect)

        def report(progress: Progress) -> None:
            context.report(progress.text, progress.done, progress.total)

        try:
            return await connection.call(name, arguments, report)
        except MCPError as error:
            if error.code != CONNECTION_CLOSED:
                raise ToolError(f"{name}: {error.error.message}") from error
            gone: Exception = error
        except (OSError, RuntimeError) as error:
            gone = error
        await asyncio.to_thread(self._drop, connection)
        context.incidents.append(f"{name}: the MCP server at {shown(self.where)} is gone: {gone}")
        raise ToolError(f"{name} lost its server ({gone}); it is started afresh at the next call") from gone

    def close(self) -> None:
        """Let go of the server; idempotent. A later call connects again."""
        connection = self._connection
        if connection is not None:
            self._drop(connection)

    def __enter__(self) -> McpServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _drop(self, connection: Connection) -> None:
        with self._opening:
            if self._connection is connection:
                self._connection = None
                if self._letting_go is not None:
                    self._letting_go()
        connection.close()


class McpTool:
    """One tool of a server."""

    def __init__(self, server: McpServer, offered: Offered, timeout_s: float) -> None:
        self._server, self._name = server, offered.name
        self.strict_schema: Mapping[str, Any] = offered.input_schema
        """As the server gave it."""
        told = compact({key: value for key, value in offered.input_schema.items() if key != "$schema"})
        self.spec = ToolSpec(_tool_name(offered.name), (offered.description or offered.title or "").strip(), told)
        self.timeout_s = timeout_s

    @property
    def secrets(self) -> tuple[str, ...]:
        """What its server was given to know us by: no record holds it."""
        return self._server.secrets

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> tuple[Part, ...]:
        """Call it at its server. Raises ToolError for an error that the server reports."""
        result = await self._server.call(self._name, arguments, context)
        return await from_result(result, context, self.spec.name)

    async def close(self, context: ToolContext) -> None:
        """Free the decoder of its pictures; the server stays for other runs."""
        close_decoder(context)

    def __repr__(self) -> str:
        return f"<tool {self.spec.name} of {shown(self._server.where)}>"


def _tool_name(name: str) -> str:
    """A name that every model's server takes: ``files/read`` becomes ``files_read``."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64]
    return plain if re.match(r"[A-Za-z_]", plain) else f"_{plain}"[:64]
