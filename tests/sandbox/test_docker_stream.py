"""Docker's multiplexed stream, taken apart: a socket pair stands for the daemon's end of the connection."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyeloop.sandbox import Limits
from keyeloop.sandbox.docker.stream import AttachedPipe
from keyeloop.sandbox.frames import PipeBroken, PipeClosed, PipeTimeout

LIMITS = Limits(frame_bytes=1 << 20, stdout_bytes=1000)


def frame(header: dict[str, object], blob: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("!II", len(text), len(blob)) + text + blob


def piece(kind: int, data: bytes) -> bytes:
    return struct.pack("!BxxxI", kind, len(data)) + data


def send_all(connection: socket.socket, pieces: list[bytes]) -> None:
    for part in pieces:
        connection.sendall(part)


@pytest.fixture
def ends() -> Iterator[tuple[AttachedPipe, socket.socket]]:
    ours, theirs = socket.socketpair()
    pipe = AttachedPipe(ours, LIMITS)
    with theirs:
        yield pipe, theirs
    pipe.close()


def soon() -> float:
    return time.monotonic() + 5


@settings(max_examples=60, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 40), max_size=30),
    words=st.lists(st.binary(max_size=20), max_size=4),
    chunk=st.integers(1, 50),
)
def test_frames_come_out_however_they_were_cut(cuts: list[int], words: list[bytes], chunk: int) -> None:
    wanted = [({"id": number, "text": "é" * number}, bytes(range(number))) for number in range(6)]
    rest, stream = b"".join(frame(header, blob) for header, blob in wanted), b""
    for cut in cuts:
        stream += piece(1, rest[:cut]) + b"".join(piece(2, word) for word in words)
        rest = rest[cut:]
    stream += piece(1, rest)
    ours, theirs = socket.socketpair()
    pipe = AttachedPipe(ours, LIMITS)
    with theirs:
        pieces = [stream[start : start + chunk] for start in range(0, len(stream), chunk)]
        daemon = threading.Thread(target=send_all, args=(theirs, pieces))
        daemon.start()
        assert [pipe.receive(soon()) for _ in wanted] == wanted
        daemon.join()
        pipe.hang_up()
        theirs.close()
        pipe.drain(5)
        assert pipe.words == b"".join(words) * len(cuts)
    pipe.close()


def test_words_are_bounded_and_frames_still_come(ends: tuple[AttachedPipe, socket.socket]) -> None:
    pipe, theirs = ends
    theirs.settimeout(5)
    for _ in range(40):
        theirs.sendall(piece(2, b"x" * 4000))
        with pytest.raises(PipeTimeout):
            pipe.receive(time.monotonic() + 0.01)
    theirs.sendall(piece(1, frame({"id": 1})))
    assert pipe.receive(soon()) == ({"id": 1}, b"")
    assert len(pipe.words) < 100_000


@pytest.mark.parametrize(
    ("sent", "said"), [(piece(1, struct.pack("!II", 1 << 30, 0)), "announced"), (piece(7, b"x"), "kind 7")]
)
def test_what_is_no_stream_of_frames_is_told(ends: tuple[AttachedPipe, socket.socket], sent: bytes, said: str) -> None:
    pipe, theirs = ends
    theirs.sendall(sent)
    with pytest.raises(PipeBroken, match=said):
        pipe.receive(soon())


def test_the_end_of_the_stream_is_told(ends: tuple[AttachedPipe, socket.socket]) -> None:
    pipe, theirs = ends
    assert not pipe.ended()
    theirs.shutdown(socket.SHUT_WR)
    assert pipe.ended()
    with pytest.raises(PipeClosed):
        pipe.receive(soon())


def test_hanging_up_reaches_the_other_side(ends: tuple[AttachedPipe, socket.socket]) -> None:
    pipe, theirs = ends
    pipe.hang_up()
    assert theirs.recv(1) == b"" and pipe.ended()
    theirs.sendall(piece(1, b"stray") + piece(2, b"last words"))
    theirs.close()
    started_s = time.monotonic()
    pipe.drain(5)
    assert pipe.words == b"last words" and time.monotonic() - started_s < 1
