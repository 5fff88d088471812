"""The decoding child as the tools hold it: started when first needed, asked over a pipe, replaced when it dies."""

from __future__ import annotations

import math
import os
import re
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

import keyeloop.tools.video
from keyeloop.runtime.evidence import Region
from keyeloop.tools.confined.errors import Unusable
from keyeloop.tools.confined.process import ConfinedChild
from keyeloop.tools.confined.wire import WireBroken, WireClosed, receive, send

CPU_S = 120.0
WALL_S = 180.0
_CURE = "look at fewer frames, or convert it to h264 with a key frame every few seconds"
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


class Facts(NamedTuple):
    """What a media file is: displayed size in pixels, seconds from its first frame to its end (None for an image)."""

    kind: Literal["video", "image"]
    width: int
    height: int
    duration_s: float | None
    fps: float | None = None
    """Frames a second as the file tells them, an average where they vary; None where it does not tell."""
    note: str = ""
    """What to know of its times; empty where the file tells them."""


class Cut(NamedTuple):
    """One distinct frame, cut and resized: its own presentation time and height x width x 3 uint8 RGB pixels."""

    time_s: float | None
    pixels: NDArray[np.uint8]


class Decoder:
    """Decodes untrusted media in a child process of its own, one request at a time; usable from any thread.

    The child is given open descriptors, never paths. It has limits on memory, processor time and files, no uid 0,
    and on Linux x86-64 and aarch64 a system-call filter. One that dies or stalls is replaced at the next request.
    """

    def __init__(self, *, cpu_s: float = CPU_S, wall_s: float = WALL_S) -> None:
        """``cpu_s`` and ``wall_s`` bound one request, in seconds of processor and of wall time."""
        self._cpu_s, self._wall_s = cpu_s, wall_s
        self._turn = threading.Lock()
        self._child = ConfinedChild(
            "keyeloop.tools.video.child.main", [keyeloop.tools.video], what="video decoder", imports="av, cv2"
        )
        self._stopped = self._closed = False
        self._notes = dict[str, str]()
        self._identities: dict[str, tuple[int, int, int, int]] = {}

    @property
    def pid(self) -> int | None:
        """Process id of the child, None while there is none."""
        return self._child.pid

    @property
    def filtered(self) -> bool:
        """Whether the running child has the system-call filter."""
        return self._child.filtered

    def probe(self, path: str) -> Facts:
        """What the file is. Raises Unusable, with cause and cure, when it cannot be looked at."""
        reply, _ = self._ask(path, {"op": "probe"})
        duration = reply.get("duration_s")
        kind, width, height = reply.get("kind"), reply.get("width"), reply.get("height")
        if kind not in ("video", "image") or not isinstance(width, int) or not isinstance(height, int):
            raise self._broken()
        if width < 1 or height < 1 or (duration is not None and not (isinstance(duration, float) and duration > 0)):
            raise self._broken()
        fps = reply.get("fps")
        if fps is not None and not (isinstance(fps, float) and 0 < fps < math.inf):
            raise self._broken()
        self._notes[path] = note = " ".join(str(reply.get("note") or "").split())[:200]
        return Facts("video" if kind == "video" else "image", width, height, duration, fps, note)

    def note(self, path: str) -> str:
        """As :class:`Facts` has it, of a file that may have been probed before. Raises Unusable as :meth:`probe`."""
        return self._notes[path] if path in self._notes else self.probe(path).note

    def cut(
        self,
        path: str,
        times_s: Sequence[float] | None,
        region: Region,
        width: int,
        height: int,
        *,
        key_frames: bool = False,
    ) -> tuple[Cut, ...]:
        """Cut ``region`` (displayed pixels) out of the frames on screen at ``times_s`` and resize it.

        Times count from the first frame; frames come back in the order asked for, each only once, with its own time.
        ``times_s`` None is for an image. ``key_frames`` takes the key frame at or before each moment instead: much
        faster in a long video, and still with its own time. Raises Unusable as :meth:`probe` does.
        """
        cuts: list[Cut] = []
        known: set[float | None] = set()

        def take(place: int, time_s: float | None, pixels: NDArray[np.uint8] | None) -> None:
            if pixels is not None and time_s not in known:
                known.add(time_s)
                cuts.append(Cut(time_s, pixels))

        self._watch(path, times_s, region, (width, height), take, {"keys": key_frames})
        if not cuts:
            raise self._broken()
        return tuple(cuts)

    def watch(
        self,
        path: str,
        times_s: Sequence[float],
        region: Region,
        size: tuple[int, int],
        take: Callable[[int, float, NDArray[np.uint8] | None], None],
        *,
        key_frames: bool = False,
        readers: int = 1,
    ) -> None:
        """As :meth:`cut`, for many moments: hands each frame to ``take`` at once, and bounds the time of one frame.

        ``take`` gets a moment's index, its frame's own time, and the pixels, None where another moment was given them.
        At most so many ``readers`` work side by side, a core each: the same frames, but in any order. What ``take``
        raises ends the child.
        """
        self._watch(path, times_s, region, size, take, {"keys": key_frames, "readers": max(1, readers)})

    def ask(self, path: str, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Send one request of ``child/main.py`` about a file. Raises Unusable as :meth:`probe` does."""
        return self._ask(path, request)

    def stop(self) -> None:
        """End the child at once; a request in progress fails. The next request starts a fresh one. Never waits long."""
        self._stopped = True
        self._child.kill()

    def close(self) -> None:
        """End the child for good and free its channel; idempotent. A request that still comes raises Unusable."""
        self._closed = True
        self.stop()
        with self._turn:
            self._child.drop(0.5)

    def __enter__(self) -> Decoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _watch(
        self,
        path: str,
        times_s: Sequence[float] | None,
        region: Region,
        size: tuple[int, int],
        take: Callable[[int, Any, NDArray[np.uint8] | None], None],
        more: dict[str, Any],
    ) -> None:
        width, height = size
        wanted = 1 if times_s is None else len(times_s)
        told: set[int] = set()

        def check(reply: dict[str, Any], payload: bytes) -> bool:
            place, time_s = reply.get("place"), reply.get("time")
            if reply.get("end") is True:
                if len(told) != wanted:
                    raise self._broken()
                return True
            if not isinstance(place, int) or not 0 <= place < wanted or place in told:
                raise self._broken()
            if time_s is not None and not (isinstance(time_s, float) and math.isfinite(time_s)):
                raise self._broken()
            if (time_s is None) != (times_s is None) or len(payload) not in (0, width * height * 3):
                raise self._broken()
            told.add(place)
            take(place, time_s, np.frombuffer(payload, np.uint8).reshape(height, width, 3) if payload else None)
            return False

        request = {
            "op": "cut",
            "times": None if times_s is None else [float(time_s) for time_s in times_s],
            "region": [region.x0, region.y0, region.x1, region.y1],
            "size": [width, height],
        }
        self._converse(path, request | more, check)

    def _ask(self, path: str, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        replies: list[tuple[dict[str, Any], bytes]] = []

        def only(reply: dict[str, Any], payload: bytes) -> bool:
            replies.append((reply, payload))
            return True

        self._converse(path, request, only)
        return replies[0]

    def _converse(self, path: str, request: dict[str, Any], on_reply: Callable[[dict[str, Any], bytes], bool]) -> None:
        """Send a request about a file and hand over the replies, until one is said to be the last."""
        with self._turn:
            fd = open_file(path)
            try:
                self._require_unchanged(path, fd)
                if self._closed:
                    raise Unusable("is no longer looked at: its run has ended")
                if self._stopped:  # while idle: the child is dying, or dead already
                    self._child.drop(0)
                self._stopped = False
                channel = self._child.channel()
                cpu_s = request.get("cpu_s", self._cpu_s)  # its own where a request may take longer than others
                allowed_s = max(self._wall_s, cpu_s) if "cpu_s" in request else self._wall_s
                until_s = time.monotonic() + allowed_s
                channel.settimeout(allowed_s)
                send(channel, {**request, "cpu_s": cpu_s}, fd=fd)
                while not self._last(channel, on_reply):
                    if "readers" not in request:  # else every frame has its own time
                        channel.settimeout(max(1e-3, until_s - time.monotonic()))
            except TimeoutError:
                self._child.drop(0)
                raise Unusable(f"took longer than {self._wall_s:g} s to decode and was stopped; {_CURE}") from None
            except (WireClosed, WireBroken):
                raise self._death(self._child.drop(5.0)) from None
            finally:
                os.close(fd)

    def _last(self, channel: socket.socket, on_reply: Callable[[dict[str, Any], bytes], bool]) -> bool:
        reply, payload, stray = receive(channel)
        if stray is not None:
            os.close(stray)
            raise self._broken()
        if "error" in reply:
            raise Unusable(" ".join(str(reply["error"]).split())[:400])
        try:
            return on_reply(reply, payload)
        except BaseException:
            self._child.drop(0)  # it has more to say that nobody listens to
            raise

    def _require_unchanged(self, path: str, fd: int) -> None:
        status = os.fstat(fd)
        identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if self._identities.setdefault(path, identity) != identity:
            raise Unusable("changed on disk since it was first opened; begin a new run")

    def _death(self, status: int | None) -> Unusable:
        if self._stopped:
            return Unusable("was being decoded when that was stopped; look again")
        if status in (-signal.SIGXCPU, -signal.SIGKILL):
            return Unusable(f"took more than {self._cpu_s:g} s of processor time to decode and was stopped; {_CURE}")
        return Unusable(f"crashed the decoder (exit status {status}): it is damaged; convert it to h264 in mp4")

    def _broken(self) -> Unusable:
        self.stop()
        return Unusable("made the decoder answer nonsense: it is damaged or hostile; convert it to h264 in mp4")


def open_file(path: str) -> int:
    """Open a regular file for reading. Raises Unusable, with cause and cure, for anything else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        if _ADDRESS.match(path):
            raise Unusable("is an address, not a file; download it first and name the file") from None
        raise Unusable(f"does not exist: no such file; check the path, relative ones start at {Path.cwd()}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Unusable(f"cannot be opened ({reason}); check its path and permissions") from None
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd
    os.close(fd)
    if stat.S_ISDIR(mode):
        raise Unusable("is a folder, not a video or an image; name a file in it")
    raise Unusable("is not a regular file; save the media to a file first")


def require_file(path: str) -> None:
    """Raises Unusable unless ``path`` is a regular file that can be read."""
    os.close(open_file(path))
