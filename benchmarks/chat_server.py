"""A loopback chat server for benchmarks of clients: answers every request at once, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TURNS = 20
WORDS = "The board shows three rows of digits and a small sign in the lower corner that I should look at. ".split()


class Loopback(asyncio.Protocol):
    """Answers every request at once: a call of the one tool, after :data:`TURNS` - 1 results an answer."""

    received_bytes = requests = 0

    def __init__(self) -> None:
        self._head, self._body, self._missing = b"", bytearray(), -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Collect a request, which may come in any pieces."""
        if self._missing < 0:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            lines = self._head[:end].lower().split(b"\r\n")
            length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
            self._body, self._missing = bytearray(self._head[end + 4 :]), length
            self._first = lines[0]
        else:
            self._body += data
        if len(self._body) >= self._missing:
            Loopback.requests += 1
            Loopback.received_bytes += self._missing
            self._transport.write(self._answer())
            self._head, self._missing = b"", -1

    def _answer(self) -> bytes:
        if self._first.startswith(b"get"):
            told = json.dumps({"requests": Loopback.requests - 1, "bytes": Loopback.received_bytes}).encode()
            return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
                len(told),
                told,
            )
        turn = self._body.count(b'"tool_call_id"')
        stream = _stream(turn)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        return b"%s%x\r\n%s\r\n0\r\n\r\n" % (head, len(stream), stream)


def _stream(turn: int) -> bytes:
    pieces: list[dict[str, Any]] = [{"content": word + " "} for word in WORDS]
    last = turn >= TURNS - 1
    if not last:
        function = {"name": "look", "arguments": json.dumps({"number": turn})}
        pieces.append({"tool_calls": [{"index": 0, "id": f"c{turn}", "type": "function", "function": function}]})
    events: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": piece}]} for piece in pieces]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop" if last else "tool_calls"}]})
    events.append({"choices": [], "usage": {"prompt_tokens": 300 + 200 * turn, "completion_tokens": len(WORDS)}})
    return b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in events) + b"data: [DONE]\n\n"


async def serve() -> None:
    """The server's own process: prints its port, ends with its input."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Loopback, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


@contextmanager
def served() -> Iterator[str]:
    """A server while the block runs, by its address."""
    command = [sys.executable, __file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.stdin.close()


if __name__ == "__main__":
    asyncio.run(serve())
