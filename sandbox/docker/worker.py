"""One worker in a container: created, attached to, checked, interrupted, ended."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from typing import Any, Final

from keyeloop.runtime.errors import SandboxError
from keyeloop.sandbox.docker.container import attach, create, fresh_uid, pids_limit
from keyeloop.sandbox.docker.daemon import GVISOR, Daemon, line_of
from keyeloop.sandbox.docker.first import CAPTURED, last_words
from keyeloop.sandbox.docker.pipes import NamedPipes
from keyeloop.sandbox.docker.stream import AttachedPipe
from keyeloop.sandbox.docker.view import HostView, parse_status
from keyeloop.sandbox.frames import FramePipe
from keyeloop.sandbox.results import Isolation
from keyeloop.sandbox.running import frame_pipe, read_before_code
from keyeloop.sandbox.spec import SandboxSpec

END_S: Final = 3.0
"""For the container's own end, after which it is removed by force."""
LATE_S: Final = 0.2
"""How much later than a death the daemon may tell that memory was the reason."""
_PRIVILEGES: Final = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


@dataclass(frozen=True)
class Choice:
    """What a container is made by and of."""

    daemon: Daemon
    image: str
    """Its id."""
    runtime: str | None
    """None for the daemon's own choice."""
    by_pipes: bool
    """Whether its worker is reached by named pipes; else through the daemon."""


class DockerWorker:
    """Owns the container, the connection to it and the thread that ends it in time."""

    def __init__(self, choice: Choice, spec: SandboxSpec) -> None:
        """Start it up to the point where the worker waits for its first message. Raises SandboxError."""
        from docker.errors import DockerException

        self._daemon, self._runtime = daemon, runtime = choice.daemon, choice.runtime
        self._pipes: NamedPipes | None = None
        self._uid = fresh_uid(daemon)
        self._spec = spec
        self._guard = threading.Lock()
        self._done = threading.Event()
        self._view: HostView | None = None
        self._expires_at_s = float("inf")
        self._begun_s = time.time()
        self._id = ""
        try:
            self._pipes = NamedPipes() if choice.by_pipes else None
            source = self._pipes.source if self._pipes else None
            self._id = create(daemon, choice.image, runtime, self._uid, spec, source)
            self._stream = AttachedPipe(attach(daemon, self._id), spec.limits)
            self.pipe: FramePipe = self._stream
            if self._pipes is not None:
                ends = (self._pipes.requests_fd, self._pipes.replies_fd)
                self.pipe = frame_pipe(*ends, self._stream.fileno(), spec.limits)
            daemon.api.start(self._id)
        except (DockerException, OSError) as error:
            self.end()
            raise SandboxError(f"the Docker sandbox did not start: {line_of(error)}") from error
        except BaseException:
            self.end()
            raise
        limits = spec.limits
        rlimits = {
            "RLIMIT_DATA": limits.memory_bytes * 7 // 8,
            "RLIMIT_FSIZE": limits.file_bytes,
            "RLIMIT_MEMLOCK": 1 << 16,
        }
        if runtime != GVISOR:  # whose kernel knows neither this limit nor what it bounds
            rlimits["RLIMIT_MSGQUEUE"] = 0
        else:
            rlimits["RLIMIT_NPROC"] = limits.pids
        self.setup: dict[str, Any] = {"capture": list(CAPTURED), "own_pids": True, "rlimits": rlimits, "site": []}
        threading.Thread(target=self._watch, name="sandbox-container", daemon=True).start()

    def confirm(self) -> Isolation:
        """Read what the kernel says of the container's first process, from the host's side where it can be seen."""
        if self._pipes is not None:
            self._pipes.remove()
        inside = parse_status(read_before_code(self.pipe, "/proc/1/status"))
        facts = self._daemon.api.inspect_container(self._id)
        self._view = HostView.of(int(facts["State"]["Pid"]), self._uid)
        status = self._view.status if self._view else inside
        uids = {int(uid) for uid in status["Uid"].split()}
        wrong = [name for name in _PRIVILEGES if int(status.get(name, "0"), 16) != 0]
        wrong += [name for name in ("NoNewPrivs",) if status.get(name, "1") != "1"]
        gvisor = (
            self._runtime == GVISOR and self._daemon.kernel not in read_before_code(self.pipe, "/proc/version").split()
        )
        filtered = inside.get("Seccomp") == "2"
        if not (filtered or gvisor):
            wrong.append("Seccomp")
        if 0 in uids or wrong:
            raise SandboxError(f"the Docker sandbox is not isolated: uids {sorted(uids)}, wrong {wrong}")
        stats = self._daemon.api.stats(self._id, stream=False, one_shot=True)
        memory = stats.get("memory_stats", {}).get("limit", 0)
        pids = stats.get("pids_stats", {}).get("limit", 0)
        limits = self._spec.limits
        return Isolation(
            engine="docker",
            boundary="gvisor" if gvisor else "namespaces",
            uid=min(uids),
            seccomp=filtered,
            userns=self._daemon.remaps_users,
            network=False,
            memory="cgroup" if 0 < memory <= limits.memory_bytes else "per-process",
            pids="cgroup" if 0 < pids <= pids_limit(limits, self._runtime) else "none",
        )

    def exited(self) -> bool:
        """Whether the container is gone, or told to go."""
        return self._done.is_set() or self._stream.ended()

    def interrupt(self) -> None:
        """Send the worker SIGINT, through the container's first process."""
        from docker.errors import DockerException

        if not self._done.is_set():
            with contextlib.suppress(DockerException, OSError):
                self._daemon.api.kill(self._id, signal="SIGINT")

    def expire(self, at_s: float) -> None:
        """End it by itself at this monotonic time."""
        self._expires_at_s = at_s
        if at_s <= time.monotonic():
            self._hang_up()

    def oom_kills(self) -> int:
        """How often the kernel has killed one of its processes for memory.

        From the control group while it lives, where this machine sees it; from the daemon's events once it is gone.
        """
        if self._done.is_set():
            return 0
        counted = self._view.oom_kills() if self._view else 0
        return max(counted, self._oom_events()) if self._stream.ended() else counted

    def leftovers(self, limit_bytes: int) -> tuple[str, str]:
        """The last words, for which the container is ended; or what Python said when it could not start."""
        self._hang_up()
        self._stream.drain(END_S)
        return last_words(self._stream.words.decode("utf-8", "replace"), limit_bytes)

    def end(self) -> None:
        """Remove the container and free everything."""
        from docker.errors import DockerException

        with self._guard:
            if self._done.is_set():
                return
            self._done.set()
        stream: AttachedPipe | None = getattr(self, "_stream", None)
        if stream is not None:
            stream.hang_up()
        if self._id:
            with contextlib.suppress(DockerException, OSError):  # most often it is being removed already
                self._daemon.api.remove_container(self._id, force=True, v=True)
        if self._view is not None:
            self._view.close()
        if self._pipes is not None:
            self._pipes.remove()
        if stream is not None:
            if self.pipe is not stream:
                self.pipe.close()
            stream.close()

    def _watch(self) -> None:
        while not self._done.wait(max(0.0, min(self._expires_at_s - time.monotonic(), 1.0))):
            if time.monotonic() >= self._expires_at_s:
                return self._hang_up()
        return None

    def _hang_up(self) -> None:
        with self._guard:
            if not self._done.is_set():
                self._stream.hang_up()

    def _oom_events(self) -> int:
        """How many the daemon has told of; it keeps the latest events of all containers."""
        from docker.errors import DockerException

        wanted = {"container": [self._id], "event": ["oom"]}
        try:
            told = self._daemon.api.events(
                since=f"{self._begun_s - 1:.6f}", until=f"{time.time() + LATE_S:.6f}", filters=wanted, decode=True
            )
            return sum(1 for _ in told)
        except (DockerException, OSError):
            return 0
