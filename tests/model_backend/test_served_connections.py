"""Connections that are kept between requests, dropped by the server, shared by tasks, left behind by event loops."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from keyeloop.model_backend.served.sending import Sender, Timeouts

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"


class KeepingServer:
    """Answers ``{}`` and keeps the connection, for ``answers`` requests; then it is reset, a request read or not."""

    def __init__(self, answers: int) -> None:
        self.answers, self.body = answers, b"{}"
        self._open: list[asyncio.StreamWriter] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self.connections = self.requests = self.port = 0

    def hang_up(self) -> None:
        """Close every connection politely, from another thread."""
        assert self._loop is not None
        for writer in self._open:
            self._loop.call_soon_threadsafe(writer.close)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._loop = asyncio.get_running_loop()
        self._open.append(writer)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                for _ in range(self.answers):
                    await reader.readuntil(b"\r\n\r\n")
                    self.requests += 1
                    writer.write(HEAD % (len(self.body), self.body))
                    await writer.drain()
                await reader.readuntil(b"\r\n\r\n")
                writer.transport.abort()
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


@contextmanager
def keeping(answers: int = 1000) -> Iterator[KeepingServer]:
    """One in a thread of its own."""
    server, ready, over, loop = KeepingServer(answers), threading.Event(), asyncio.Event(), asyncio.new_event_loop()

    async def main() -> None:
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        server.port = listening.sockets[0].getsockname()[1]
        ready.set()
        await over.wait()
        listening.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)
        loop.close()


def sender(server: KeepingServer) -> Sender:
    return Sender(f"http://127.0.0.1:{server.port}", None, Timeouts(5, 5, 20), 3, loopback=True)


async def test_a_connection_is_kept() -> None:
    with keeping() as server:
        asking = sender(server)
        assert [await asking.get("/x") for _ in range(5)] == [b"{}"] * 5
        assert server.connections == 1
        await asking.close()
        await asking.close()
        assert await asking.get("/x") == b"{}"
        assert server.connections == 2
        await asking.close()


async def test_many_at_a_time_have_one_each_and_keep_them() -> None:
    with keeping() as server:
        asking = sender(server)
        for _ in range(3):
            await asyncio.gather(*(asking.get("/x") for _ in range(20)))
        assert server.requests == 60 and 1 <= server.connections <= 20
        await asking.close()


async def test_one_that_the_server_resets_is_replaced() -> None:
    with keeping(answers=2) as server:
        asking = sender(server)
        assert [await asking.get("/x") for _ in range(6)] == [b"{}"] * 6
        assert (server.requests, server.connections) == (6, 3)
        await asking.close()


def test_event_loops_have_their_own_and_take_them_along() -> None:
    with keeping() as server:
        asking = sender(server)
        for _ in range(3):
            assert asyncio.run(asking.get("/x")) == b"{}"
            gc.collect()  # a connection that was left open would warn here
        assert server.connections == 3 and not asking._connections._kept


@pytest.mark.parametrize("loopback", [False, True])
async def test_a_proxy_of_the_environment_is_asked_for_other_machines_only(
    loopback: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with keeping() as proxy, keeping() as server:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        asking = Sender(f"http://127.0.0.1:{server.port}", None, Timeouts(5, 5, 20), 3, loopback=loopback)
        assert [await asking.get("/x") for _ in range(3)] == [b"{}"] * 3
        assert (proxy.requests, server.requests) == ((0, 3) if loopback else (3, 0))
        assert proxy.connections + server.connections == 1
        await asking.close()


async def test_one_that_the_server_closed_while_it_was_idle_is_not_used_again() -> None:
    """Seen before a request is sent: nothing has to be tried twice."""
    with keeping() as server:
        asking = Sender(f"http://127.0.0.1:{server.port}", None, Timeouts(5, 5, 20), 1, loopback=True)
        for connections in (1, 2, 3):
            assert await asking.get("/x") == b"{}"
            assert server.connections == connections
            server.hang_up()
            await asyncio.sleep(0.1)
        await asking.close()


async def test_one_whose_reply_was_left_half_read_is_not_used_again() -> None:
    with keeping() as server:
        server.body = b"{" + b" " * 300_000 + b"}"
        connections = sender(server)._connections
        url = f"http://127.0.0.1:{server.port}/x"
        for count in (1, 2):
            async with connections.answered("GET", url, {}, b"") as response:
                assert response.status_code == 200
                async for _ in response.aiter_bytes(10):
                    break
            assert server.connections == count
        await connections.close()
