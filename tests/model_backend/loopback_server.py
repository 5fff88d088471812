"""A small real chat server on 127.0.0.1 that plays what a test tells it, faults included."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

BODY_BYTES = 16 << 20
PATIENCE_S = 30.0
EVENTS = {"Content-Type": "text/event-stream"}
Json = dict[str, Any]


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    json: Json


@dataclass(frozen=True)
class Play:
    """An answer: bytes are sent, a number is a pause in seconds, and ``cut`` ends it with a reset.

    Status 0 sends nothing at all.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: dict(EVENTS))
    pieces: tuple[bytes | float, ...] = ()
    cut: bool = False


def event(data: Json | str) -> bytes:
    """One event of a stream."""
    return f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()


def delta(finish: str | None = None, **piece: Any) -> bytes:
    """One piece of a reply."""
    return event({"choices": [{"index": 0, "delta": piece, "finish_reason": finish}]})


def counts(prompt: int, completion: int = 1, cached: int = 0) -> bytes:
    """The event that tells the usage."""
    details = {"cached_tokens": cached}
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "prompt_tokens_details": details}
    return event({"choices": [], "usage": usage})


def said(*texts: str, prompt: int = 10, finish: str = "stop") -> Play:
    """A whole good reply in pieces of content."""
    pieces = (delta(role="assistant"), *(delta(content=text) for text in texts), delta(finish))
    return Play(pieces=(*pieces, counts(prompt, len(texts)), event("[DONE]")))


def called(name: str, arguments: str, prompt: int = 10) -> Play:
    """A reply that makes one call, its arguments in two pieces."""
    middle = len(arguments) // 2
    head = {"index": 0, "id": "abc", "type": "function", "function": {"name": name, "arguments": arguments[:middle]}}
    tail = {"index": 0, "function": {"arguments": arguments[middle:]}}
    pieces = (delta(tool_calls=[head]), delta(tool_calls=[tail]), delta("tool_calls"))
    return Play(pieces=(*pieces, counts(prompt, 8), event("[DONE]")))


def failed(status: int, message: str, **headers: str) -> Play:
    """An error as servers put it."""
    body = json.dumps({"error": {"message": message, "code": status}}).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Play(status, {"Content-Type": "application/json", **named}, (body,))


Player = Callable[[Received], Play]


class LoopbackServer:
    """Plays its answers in order; a function stands for as many as are asked. Models are listed at ``/v1/models``."""

    def __init__(self, plays: Iterable[Play] | Player, models: list[Json]) -> None:
        self.received: list[Received] = []
        """Chat requests."""
        self.pages: dict[str, Json] = {}
        """What is answered at other paths."""
        self.hung_up = threading.Event()
        """A client has closed its connection before the answer was whole."""
        self.port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listening: asyncio.Server | None = None
        self._connections: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self._player = plays if callable(plays) else None
        self._plays = iter(()) if callable(plays) else iter(plays)
        self._models = models

    @property
    def address(self) -> str:
        """Without a model's name."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def native(self) -> str:
        """The address of its own interface."""
        return f"sglang://127.0.0.1:{self.port}"

    async def listen(self) -> None:
        """Take connections at the port."""
        self._loop = asyncio.get_running_loop()
        self._listening = await asyncio.start_server(self._accept, "127.0.0.1", self.port, backlog=128)

    def refuse(self) -> None:
        """Listen no more, in the server's own thread: what connects is refused, what is being answered is not cut."""
        assert self._listening is not None
        self._listening.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections[writer] = asyncio.create_task(self.serve(reader, writer))

    def hang_up(self) -> None:
        """End every connection, also one whose request was never read."""
        for writer in self._connections:
            writer.transport.abort()

    def reopen(self) -> None:
        """Listen again, from another thread."""
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self.listen(), self._loop).result(PATIENCE_S)

    def play(self, request: Received) -> Play:
        """The answer to one request."""
        if request.path in self.pages:
            return Play(200, {"Content-Type": "application/json"}, (json.dumps(self.pages[request.path]).encode(),))
        if request.path.endswith("/models"):
            body = json.dumps({"object": "list", "data": self._models}).encode()
            return Play(200, {"Content-Type": "application/json"}, (body,))
        self.received.append(request)
        if self._player is not None:
            return self._player(request)
        return next(self._plays, failed(418, "the test has no more answers"))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                play = self.play(await _request(reader))
                head = "".join(f"{name}: {value}\r\n" for name, value in play.headers.items())
                if play.status:
                    writer.write(f"HTTP/1.1 {play.status} X\r\n{head}Connection: close\r\n\r\n".encode())
                for piece in play.pieces:
                    await writer.drain()
                    if isinstance(piece, bytes):
                        writer.write(piece)
                    elif await self._left(reader, piece):
                        return
                await writer.drain()
                if play.cut:
                    writer.transport.abort()
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            self.hung_up.set()
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _left(self, reader: asyncio.StreamReader, pause_s: float) -> bool:
        try:
            gone = await asyncio.wait_for(reader.read(1), pause_s) == b""
        except TimeoutError:
            return False
        if gone:
            self.hung_up.set()
        return gone


async def _request(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    length = int(headers.get("content-length", "0"))
    assert length <= BODY_BYTES
    body = await reader.readexactly(length)
    return Received(method, path, headers, json.loads(body) if body else {})


@contextmanager
def loopback(
    plays: Iterable[Play] | Player, models: tuple[str, ...] = ("m",), **facts: Any
) -> Iterator[LoopbackServer]:
    """A server in a thread of its own while the block runs; ``facts`` stand beside every listed model."""
    server = LoopbackServer(plays, [{"id": name, "object": "model", **facts} for name in models])
    ready, over = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def main() -> None:
        with socket.socket() as held:  # bound, never listening: nobody else gets the port while this one refuses
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(("127.0.0.1", 0))
            server.port = held.getsockname()[1]
            await server.listen()
            ready.set()
            await over.wait()
            server.refuse()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        server.hang_up()
        await asyncio.sleep(0.01)  # transports close in the loop's next turns

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()), daemon=True)
    thread.start()
    assert ready.wait(PATIENCE_S)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(PATIENCE_S)
        loop.close()
