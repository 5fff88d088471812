"""The host's end of the pipe: sizes are judged before bytes are read, time is the host's."""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from keyeloop.sandbox.frames import FramePipe, PipeBroken, PipeClosed, PipeTimeout


class Ends:
    """A pipe to a worker that the test plays."""

    def __init__(self) -> None:
        self.requests, requests_in = os.pipe()
        replies_out, self.replies = os.pipe()
        self.alive, self.life = os.pipe()
        self.pipe = FramePipe(requests_in, replies_out, self.alive, json_bytes=1000, frame_bytes=10_000)

    def say(self, text: bytes, blob: bytes = b"") -> None:
        os.write(self.replies, struct.pack("!II", len(text), len(blob)) + text + blob)


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    yield ends
    ends.pipe.close()
    for fd in (ends.requests, ends.replies, ends.alive, ends.life):
        with contextlib.suppress(OSError):
            os.close(fd)


def soon() -> float:
    return time.monotonic() + 0.2


def test_frames_come_whole_and_one_by_one(ends: Ends) -> None:
    ends.say(b'{"id":1}', b"\0raw")
    ends.say(b'{"id":2}')
    assert ends.pipe.receive(soon()) == ({"id": 1}, b"\0raw")
    assert ends.pipe.receive(soon()) == ({"id": 2}, b"")
    ends.pipe.send({"op": "x"}, b"yz", soon())
    assert os.read(ends.requests, 100) == struct.pack("!II", 11, 2) + b'{"op": "x"}yz'


def test_a_late_frame_can_still_be_read_to_its_end(ends: Ends) -> None:
    frame = struct.pack("!II", 8, 3) + b'{"id":7}abc'
    os.write(ends.replies, frame[:12])
    with pytest.raises(PipeTimeout):
        ends.pipe.receive(time.monotonic() + 0.05)
    os.write(ends.replies, frame[12:])
    assert ends.pipe.receive(soon()) == ({"id": 7}, b"abc")


@pytest.mark.parametrize(
    "frame",
    [
        struct.pack("!II", 1001, 0), struct.pack("!II", 0xFFFFFFFF, 0), struct.pack("!II", 2, 9999),
        struct.pack("!II", 2, 0) + b"[]", struct.pack("!II", 1, 0) + b"{", struct.pack("!II", 0, 0),
        struct.pack("!II", 900, 0) + b"[" * 900, struct.pack("!II", 2, 0) + b"\xff\xfe",
        struct.pack("!II", 4, 0) + b"null",
    ],
)  # fmt: skip
def test_what_is_no_frame_is_refused_at_once(ends: Ends, frame: bytes) -> None:
    os.write(ends.replies, frame)
    with pytest.raises(PipeBroken):
        ends.pipe.receive(soon())


def test_a_worker_that_hangs_up_or_ends_is_noticed(ends: Ends) -> None:
    os.close(ends.life)
    started_s = time.monotonic()
    with pytest.raises(PipeClosed):
        ends.pipe.receive(started_s + 5)
    with pytest.raises(PipeClosed):
        ends.pipe.send({}, b"x" * 1_000_000, started_s + 5)
    assert time.monotonic() - started_s < 1


def test_what_was_said_before_the_end_is_heard(ends: Ends) -> None:
    ends.say(b'{"id":1}')
    os.close(ends.life)
    assert ends.pipe.receive(soon()) == ({"id": 1}, b"")


def test_a_worker_that_does_not_read_cannot_hold_the_host(ends: Ends) -> None:
    with pytest.raises(PipeTimeout):
        ends.pipe.send({}, b"x" * 1_000_000, time.monotonic() + 0.05)


def test_dribbling_does_not_extend_the_time(ends: Ends) -> None:
    def dribble() -> None:
        for _ in range(20):
            os.write(ends.replies, b"\0")
            time.sleep(0.02)

    thread = threading.Thread(target=dribble)
    os.write(ends.replies, struct.pack("!II", 900, 0))
    thread.start()
    started_s = time.monotonic()
    with pytest.raises(PipeTimeout):
        ends.pipe.receive(started_s + 0.1)
    assert time.monotonic() - started_s < 0.3
    thread.join()
