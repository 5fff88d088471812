"""A worker that says whatever it likes, played by a thread: the host's side of the pipe without an engine."""

from __future__ import annotations

import contextlib
import json
import os
import random
import struct
import threading
from pathlib import Path
from typing import Any, ClassVar, Final

from keyeloop.sandbox import Availability, Isolation, SandboxSpec
from keyeloop.sandbox.frames import FramePipe
from keyeloop.sandbox.session import WorkerSandbox

_LENGTHS: Final = struct.Struct("!II")
GOOD: Final = {
    "status": "ok", "stdout": "true\n", "stderr": "", "truncated": False, "error": None, "displays": [], "files": [],
    "refused": [],
}  # fmt: skip


class HostileRunning:
    """Both ends of a worker's pipe; the thread reads requests and answers what ``dice`` tells."""

    def __init__(self, dice: random.Random, spec: SandboxSpec) -> None:
        requests_out, requests_in = os.pipe()
        replies_out, replies_in = os.pipe()
        self._alive_out, self._alive_in = os.pipe()
        self._dice = dice
        self._ended = threading.Event()
        self._life = threading.Lock()
        self.setup: dict[str, Any] = {"capture": [], "rlimits": {}, "site": []}
        self.pipe = FramePipe(
            requests_in, replies_out, self._alive_out, json_bytes=1 << 16, frame_bytes=spec.limits.frame_bytes
        )
        self._thread = threading.Thread(target=self._live, args=(requests_out, replies_in), daemon=True)
        self._thread.start()

    def confirm(self) -> Isolation:
        return Isolation("hostile", "none", 65534, False, False, False, "none", "none")

    def exited(self) -> bool:
        return self._ended.is_set()

    def interrupt(self) -> None:
        pass

    def expire(self, at_s: float) -> None:
        pass

    def oom_kills(self) -> int:
        return 0

    def leftovers(self, limit_bytes: int) -> tuple[str, str]:
        return "", ""

    def end(self) -> None:
        with self._life:
            if self._alive_in < 0:
                return
            os.close(self._alive_in)
            self._alive_in = -1
        self.pipe.close()
        self._thread.join(5)
        assert not self._thread.is_alive()
        os.close(self._alive_out)

    def _live(self, requests: int, replies: int) -> None:
        try:
            with open(requests, "rb") as asked, contextlib.suppress(OSError, EOFError):
                _take(asked, int.from_bytes(_take(asked, 4), "big"))
                _request(asked)
                _send(replies, frame({"id": 0, "ready": True}))
                while True:
                    _send(replies, hostile(self._dice, _request(asked)))
                    if self._dice.random() < 0.15:
                        break
        finally:
            os.close(replies)
            self._ended.set()


class HostileSandbox(WorkerSandbox):
    """A sandbox whose worker lies; it runs nothing."""

    engine: ClassVar[str] = "hostile"

    def __init__(self, spec: SandboxSpec, seed: int) -> None:
        super().__init__(spec)
        self._dice = random.Random(seed)

    @classmethod
    def available(cls, spec: SandboxSpec | None = None) -> Availability:
        return Availability(True, cls.engine, "", "")

    def _launch(self) -> HostileRunning:
        return HostileRunning(self._dice, self.spec)


def frame(header: Any, blob: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return _LENGTHS.pack(len(text), len(blob)) + text + blob


def hostile(dice: random.Random, request: dict[str, Any]) -> bytes:
    """An answer to a request: sometimes right, mostly broken in one of many ways."""
    reply: dict[str, Any] = {"id": request["id"], **GOOD, "size": dice.choice((0, 3, -1, 1 << 62, "x", None))}
    kind = dice.randrange(12)
    if kind == 0:
        return frame(reply)
    if kind == 1:
        return frame(reply | {"id": dice.choice((0, request["id"] + 1, "1", None, [1]))})
    if kind == 2:
        reply[dice.choice([*GOOD, "problem"])] = value(dice, 3)
        return frame(reply, dice.randbytes(dice.randrange(64)))
    if kind == 3:
        reply.pop(dice.choice(list(GOOD)))
        return frame(reply)
    if kind == 4:
        return dice.randbytes(dice.randrange(1, 200))
    if kind == 5:
        return _LENGTHS.pack(dice.randrange(1 << 32), dice.randrange(1 << 32)) + b"{"
    if kind == 6:
        whole = frame(reply, b"x" * dice.randrange(100))
        return whole[: dice.randrange(len(whole))]
    if kind == 7:
        turned = bytearray(frame(reply))
        turned[dice.randrange(len(turned))] ^= 1 << dice.randrange(8)
        return bytes(turned)
    if kind == 8:
        text = dice.choice(("[", '{"a":', "[[1],")) * dice.randrange(1, 9000)
        return _LENGTHS.pack(len(text), 0) + text.encode()
    if kind == 9:
        return frame(
            reply
            | {"files": [[name(dice), dice.choice((0, 5, 1 << 70, -3))] for _ in range(dice.choice((1, 40, 2000)))]}
        )
    if kind == 10:
        return frame(
            reply | {"displays": [{dice.choice(("image/png", "text/plain", "x")): value(dice, 2)}] * 3}, b"png"
        )
    return frame(reply) * dice.randrange(2, 5)


def name(dice: random.Random) -> str:
    return dice.choice(("a", "../a", "/etc/passwd", "a/../../b", "\ud800", "a\nb", "x" * 5000, "", "<b>", "\0"))


def value(dice: random.Random, depth: int) -> Any:
    """Any JSON value."""
    kind = dice.randrange(9 if depth else 7)
    if kind == 7:
        return [value(dice, depth - 1) for _ in range(dice.randrange(4))]
    if kind == 8:
        return {name(dice): value(dice, depth - 1) for _ in range(dice.randrange(4))}
    return (None, True, -1, 1 << 80, 1.5, "x" * dice.randrange(100), name(dice))[kind]


def _request(file: Any) -> dict[str, Any]:
    header_bytes, blob_bytes = _LENGTHS.unpack(_take(file, _LENGTHS.size))
    request: dict[str, Any] = json.loads(_take(file, header_bytes))
    _take(file, blob_bytes)
    return request


def _take(file: Any, size: int) -> bytes:
    data: bytes = file.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _send(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def open_files() -> int:
    """How many descriptors this process holds."""
    return len(list(Path("/proc/self/fd").iterdir()))
