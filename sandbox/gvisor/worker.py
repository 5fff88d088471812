"""One worker under ``runsc``: started, checked, interrupted, ended."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from keyeloop.runtime.errors import SandboxError
from keyeloop.sandbox.bwrap_plan import fresh_uid
from keyeloop.sandbox.cgroup import Cgroup, CgroupHome, find_cgroup_home
from keyeloop.sandbox.docker.container import GVISOR_PIDS
from keyeloop.sandbox.docker.first import CAPTURED, last_words
from keyeloop.sandbox.docker.view import parse_status
from keyeloop.sandbox.gvisor.bundle import write_bundle
from keyeloop.sandbox.interpreter import interpreter
from keyeloop.sandbox.own_folder import make_folder
from keyeloop.sandbox.process import Child
from keyeloop.sandbox.results import Isolation
from keyeloop.sandbox.running import frame_pipe, read_before_code
from keyeloop.sandbox.spec import SandboxSpec

END_S: Final = 3.0
CONTROL_S: Final = 10.0
"""For one command of ``runsc``, on a machine that others use too."""
_ENTER: Final = 'read _ < "/dev/fd/$1"; shift; exec "$@"'
"""Waits until the host has put the process into its control group: what it starts is born inside."""


class RunscWorker:
    """Owns the processes of one ``runsc run``, their control group, the bundle and the pipe."""

    def __init__(self, runsc: Path, spec: SandboxSpec) -> None:
        """Start it up to the point where the worker waits for its first message. Raises SandboxError."""
        self._runsc, self._spec = runsc, spec
        self._name = f"keyeloop-{secrets.token_hex(6)}"
        self._folder = make_folder("runsc")
        self._words_fd = os.memfd_create("words")
        self._guard = threading.Lock()
        self._ended = False
        self._cgroup: Cgroup | None = None
        self._child: Child | None = None
        self._home = find_cgroup_home()
        python = interpreter(spec.python)
        try:
            write_bundle(self._folder, python, fresh_uid(), spec)
            self._start(spec)
        except OSError as error:
            self.end()
            raise SandboxError(f"the runsc sandbox did not start: {error}") from error
        except BaseException:
            self.end()
            raise
        limits = spec.limits
        self.setup: dict[str, Any] = {
            "capture": list(CAPTURED),
            "own_pids": True,
            "rlimits": {
                "RLIMIT_DATA": limits.memory_bytes * 7 // 8,
                "RLIMIT_FSIZE": limits.file_bytes,
                "RLIMIT_NPROC": limits.pids,  # of a uid that only this sandbox's kernel knows; old ones do not count
            },
            "site": [str(folder) for folder in python.sites_inside],
        }

    def confirm(self) -> Isolation:
        """Read what gVisor's kernel says of the worker, and the host's kernel of gVisor."""
        inside = parse_status(read_before_code(self.pipe, "/proc/1/status"))
        if os.uname().release in read_before_code(self.pipe, "/proc/version").split():
            raise SandboxError("the runsc sandbox is not isolated: it has the host's kernel")
        wrong = [name for name in ("CapPrm", "CapEff", "CapBnd") if int(inside.get(name, "0"), 16)]
        uids = {int(uid) for uid in parse_status(Path(f"/proc/{self._sentry()}/status").read_text())["Uid"].split()}
        if wrong or 0 in uids or "0" in inside["Uid"].split():
            raise SandboxError(f"the runsc sandbox is not isolated: uids {sorted(uids)}, wrong {wrong}")
        return Isolation(
            engine="runsc",
            boundary="gvisor",
            uid=min(uids),
            seccomp=inside.get("Seccomp") == "2",
            userns=True,
            network=False,
            memory="cgroup" if "memory" in self._home else "per-process",
            pids="cgroup" if "pids" in self._home else "none",
        )

    def exited(self) -> bool:
        """Whether it is gone, or told to go."""
        return self._ended or self._child is None or self._child.exited()

    def interrupt(self) -> None:
        """Send the worker SIGINT, through the first process."""
        if not self._ended:
            self._control("kill", self._name, "INT")

    def expire(self, at_s: float) -> None:
        """End it by itself at this monotonic time."""
        if self._child is not None:
            self._child.expires_at_s = at_s
        if at_s <= time.monotonic():
            self._hang_up()

    def oom_kills(self) -> int:
        """How often the kernel has killed gVisor for memory."""
        return 0 if self._cgroup is None or self._ended else self._cgroup.oom_kills()

    def leftovers(self, limit_bytes: int) -> tuple[str, str]:
        """The last words, for which the sandbox is ended; or what was said when it could not start."""
        self._hang_up()
        if self._child is not None:
            self._child.wait(END_S)
        return last_words(os.pread(self._words_fd, 1 << 22, 0).decode("utf-8", "replace"), limit_bytes)

    def end(self) -> None:
        """Kill everything, then free descriptors, the control group and the folder."""
        with self._guard:
            if self._ended:
                return
            self._ended = True
        if self._child is not None:
            self._control("delete", "--force", self._name)
            self._child.kill()
            if self._child.wait(END_S):
                self._child.forget()
            self.pipe.close()
        if self._cgroup is not None:
            self._cgroup.close()
        os.close(self._words_fd)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, spec: SandboxSpec) -> None:
        command = [str(self._runsc), "--root", str(self._folder / "state"), "--network=none"]
        command += ["--ignore-cgroups", "run", "--bundle", str(self._folder), self._name]
        requests, replies, block = os.pipe(), os.pipe(), os.pipe()
        try:
            self._child = Child(
                ["/bin/sh", "-c", _ENTER, "sh", str(block[0]), *command],
                {"stdin": requests[0], "stdout": replies[1], "stderr": self._words_fd, "pass_fds": (block[0],)},
            )
        except BaseException:
            for fd in (requests[1], replies[0], block[1]):
                os.close(fd)
            raise
        finally:
            for fd in (requests[0], replies[1], block[0]):
                os.close(fd)
        self._requests_fd = requests[1]
        self.pipe = frame_pipe(requests[1], replies[0], self._child.exited_fd, spec.limits)
        try:
            self._cgroup = Cgroup(self._home, replace(spec.limits, pids=spec.limits.pids + GVISOR_PIDS))
            self._cgroup.add([self._child.pid])
        except OSError:
            self._home = CgroupHome()
        finally:
            os.write(block[1], b"\n")
            os.close(block[1])

    def _hang_up(self) -> None:
        """Close the requests' end, at which the first process ends everything."""
        with self._guard:
            if not self._ended and self._child is not None:
                with Path(os.devnull).open("wb") as nowhere:
                    os.dup2(nowhere.fileno(), self._requests_fd)

    def _sentry(self) -> int:
        """The number of gVisor's own process."""
        try:
            return int(json.loads(self._control("state", self._name))["pid"])
        except (ValueError, KeyError) as error:
            raise SandboxError("the runsc sandbox cannot be checked: runsc does not tell its process") from error

    def _control(self, *arguments: str) -> str:
        command = [str(self._runsc), "--root", str(self._folder / "state"), *arguments]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            return subprocess.run(
                command, capture_output=True, text=True, timeout=CONTROL_S, env={}, check=False
            ).stdout
        return ""
