"""Servers that are not there, slow, busy, broken, cut off or babbling; keys that must not be seen."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from keyeloop.model_backend.base import Delta, Reply, Request
from keyeloop.model_backend.openai_chat.backend import OpenAIChat
from keyeloop.model_backend.served import events, sending
from keyeloop.model_backend.served.failures import retry_after_s
from keyeloop.model_backend.served.sending import Timeouts
from keyeloop.runtime.content import Message, Text
from keyeloop.runtime.errors import BackendError, ConfigError, ContextOverflow
from keyeloop.runtime.media import MediaStore
from tests.model_backend.loopback_server import LoopbackServer, Play, delta, event, failed, loopback, said

QUESTION = Request((Message("user", (Text("How many?"),)),))
FAST = Timeouts(connect_s=5, read_s=5, total_s=20)
HALF = delta(content="half an ans")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "FIRST_PAUSE_S", 0.01)


async def ask(server: LoopbackServer, folder: Path, timeouts: Timeouts = FAST, tries: int = 3) -> Reply:
    model = OpenAIChat(
        server.address + "#m",
        api_key="sk-secret-7",
        context_tokens=4096,
        pictures="tool",
        call_form="native",
        timeouts=timeouts,
        tries=tries,
    )
    return await model.generate(QUESTION, MediaStore(folder))


async def refused(server: LoopbackServer, folder: Path, timeouts: Timeouts = FAST, tries: int = 3) -> str:
    with pytest.raises(BackendError) as caught:
        await ask(server, folder, timeouts, tries)
    assert "sk-secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as held:  # bound, never listening
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


async def test_nobody_listens(closed_port: int, tmp_path: Path) -> None:
    model = OpenAIChat(f"http://127.0.0.1:{closed_port}/v1#m", timeouts=FAST, tries=2)
    with pytest.raises(BackendError, match=r"cannot be reached .*is the server running.*tried 2 times"):
        await model.generate(QUESTION, MediaStore(tmp_path))


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_a_passing_failure_is_tried_again(status: int, tmp_path: Path) -> None:
    with loopback([failed(status, "busy"), failed(status, "busy"), said("4")]) as server:
        assert (await ask(server, tmp_path)).message.text == "4"
    assert len(server.received) == 3


async def test_tries_are_counted(tmp_path: Path) -> None:
    with loopback([failed(500, "the disk is full, sk-secret-7")] * 3) as server:
        assert "answered 500: the disk is full, ***" in await refused(server, tmp_path)
    assert len(server.received) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 422, 302])
async def test_other_refusals_are_final(status: int, tmp_path: Path) -> None:
    with loopback([failed(status, "no such thing")]) as server:
        assert str(status) in await refused(server, tmp_path)
    assert len(server.received) == 1


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (400, "This model's maximum context length is 4096 tokens. However, you requested 9000 tokens"),
        (400, "the request exceeds the available context size, try increasing it"),
        (400, "The input (5000 tokens) is longer than the model's context length (4096 tokens)."),
        (413, "prompt is too long"),
    ],
)
async def test_a_request_that_is_too_long_is_told_apart(status: int, text: str, tmp_path: Path) -> None:
    with loopback([failed(status, text)]) as server, pytest.raises(ContextOverflow, match=r"too long: .*smaller"):
        await ask(server, tmp_path)
    assert len(server.received) == 1


async def test_retry_after_is_honoured(tmp_path: Path) -> None:
    with loopback([failed(429, "slow down", Retry_After="0.4"), said("4")]) as server:
        started = time.monotonic()
        await ask(server, tmp_path)
        assert time.monotonic() - started >= 0.4
    with loopback([failed(429, "slow down", Retry_After="90")]) as server:
        assert "asks to wait 90 s, longer than is left" in await refused(server, tmp_path)
    assert len(server.received) == 1


def test_retry_after_as_a_date() -> None:
    soon = retry_after_s({"retry-after": formatdate(time.time() + 30, usegmt=True)})
    assert soon is not None and 25 < soon <= 30
    assert retry_after_s({"retry-after": formatdate(0, usegmt=True)}) == 0
    assert retry_after_s({"retry-after": "tomorrow"}) is None is retry_after_s({})


async def test_a_connection_that_breaks_before_a_reply_is_tried_again(tmp_path: Path) -> None:
    early = Play(pieces=(delta(role="assistant"), 0.05), cut=True)
    with loopback([Play(cut=True), early, said("4")]) as server:
        assert (await ask(server, tmp_path)).message.text == "4"
    assert len(server.received) == 3


@pytest.mark.parametrize("cut", [True, False])
async def test_nothing_is_sent_twice_once_a_reply_has_begun(cut: bool, tmp_path: Path) -> None:
    with loopback([Play(pieces=(HALF, 0.05), cut=cut), said("4")]) as server:
        assert "the reply had begun, so it was not asked again" in await refused(server, tmp_path)
    assert len(server.received) == 1


async def test_an_error_in_the_middle_of_a_stream(tmp_path: Path) -> None:
    with loopback([Play(pieces=(HALF, event({"error": {"message": "out of memory"}})))]) as server:
        assert "broke off with an error: out of memory" in await refused(server, tmp_path)


async def test_a_server_that_goes_silent(tmp_path: Path) -> None:
    slow = Timeouts(connect_s=5, read_s=0.2, total_s=20)
    with loopback([Play(pieces=(20.0,))]) as server:
        assert "sent nothing for 0.2 s" in await refused(server, tmp_path, slow)
    with loopback([Play(pieces=(HALF, 20.0))]) as server:
        assert "sent nothing for 0.2 s; the reply had begun" in await refused(server, tmp_path, slow)
    assert len(server.received) == 1


async def test_a_reply_that_drips_has_an_end(tmp_path: Path) -> None:
    drip = Play(pieces=(HALF, 0.05) * 200)
    with loopback([drip]) as server:
        said_so = await refused(server, tmp_path, Timeouts(connect_s=5, read_s=5, total_s=0.5))
        assert "took more than 0.5 s in all" in said_so
        assert server.hung_up.wait(5)


@pytest.mark.parametrize("babble", [b"data: {not json}\n\n", b"data: [1]\n\n", b'data: "x"\n\n', b"data: \xff\xfe\n\n"])
async def test_what_is_no_protocol_is_told(babble: bytes, tmp_path: Path) -> None:
    with loopback([Play(pieces=(babble,))]) as server:
        assert "sent" in await refused(server, tmp_path)
    assert len(server.received) == 1


async def test_a_page_instead_of_a_model(tmp_path: Path) -> None:
    with loopback([Play(200, {"Content-Type": "text/html"}, (b"<html>welcome</html>",))]) as server:
        assert "is it a chat endpoint?" in await refused(server, tmp_path)


@pytest.mark.parametrize("ends", [b"\n\n", b""])
async def test_a_line_without_end_is_bounded(ends: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LINE_BYTES", 1 << 16)
    with loopback([Play(pieces=(b"data: " + b"x" * (1 << 20) + ends,))]) as server:
        assert "sent a line of more than 65,536 bytes" in await refused(server, tmp_path)


@pytest.mark.parametrize("kind", ["text/event-stream", "application/json"])
async def test_a_reply_without_end_is_bounded(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "REPLY_BYTES", 1 << 18)
    endless = Play(200, {"Content-Type": kind}, (b": nothing\n\n" * 1000,) * 100)
    with loopback([endless]) as server:
        assert "more than 262,144 bytes in one reply" in await refused(server, tmp_path)


async def test_events_may_be_cut_anywhere(tmp_path: Path) -> None:
    whole = b": hello\r\nid: 7\r\n" + delta(content="é ").replace(b"\n", b"\r\n") + delta("stop") + event("[DONE]")
    with loopback([Play(pieces=tuple(whole[at : at + 1] for at in range(len(whole))))]) as server:
        assert (await ask(server, tmp_path)).message.text == "é"


async def test_cancelling_closes_the_connection(tmp_path: Path) -> None:
    begun = asyncio.Event()
    with loopback([Play(pieces=(HALF, 20.0))]) as server:
        model = OpenAIChat(server.address + "#m", context_tokens=4096, pictures="tool", call_form="native")

        def heard(_: Delta) -> None:
            begun.set()

        asking = asyncio.create_task(model.generate(QUESTION, MediaStore(tmp_path), heard))
        await asyncio.wait_for(begun.wait(), 10)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert server.hung_up.wait(10)


def test_a_key_that_is_none_is_not_repeated() -> None:
    with pytest.raises(ConfigError, match="KEYELOOP_API_KEY holds") as caught:
        OpenAIChat("http://127.0.0.1:9/v1#m", api_key="sk-\nsecret")
    assert "secret" not in str(caught.value)


def test_one_client_serves_many_event_loops(tmp_path: Path) -> None:
    with loopback([said("4"), said("5")]) as server:
        model = OpenAIChat(server.address + "#m", context_tokens=4096, pictures="tool", call_form="native")
        texts = [asyncio.run(model.generate(QUESTION, MediaStore(tmp_path))).message.text for _ in range(2)]
    assert texts == ["4", "5"]
