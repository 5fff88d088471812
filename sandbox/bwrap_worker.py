"""One worker process under bubblewrap: started, checked from outside, interrupted, ended."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import threading
import time
from typing import Any, Final

from keyeloop.runtime.errors import SandboxError
from keyeloop.sandbox.bwrap_arguments import bwrap_command, bwrap_options
from keyeloop.sandbox.bwrap_orphans import end_orphans_once, owner_name
from keyeloop.sandbox.bwrap_plan import BwrapPlan, fresh_uid
from keyeloop.sandbox.cgroup import Cgroup, CgroupHome, find_cgroup_home
from keyeloop.sandbox.process import Child, Descendant, child_of
from keyeloop.sandbox.results import Isolation
from keyeloop.sandbox.running import frame_pipe
from keyeloop.sandbox.seccomp import seccomp_program
from keyeloop.sandbox.spec import SandboxSpec

INFO_S: Final = 10.0
"""For bubblewrap to make its namespaces."""
END_S: Final = 2.0
_EXPECTED: Final = {"CapPrm": 0, "CapEff": 0, "CapBnd": 0, "CapAmb": 0, "NoNewPrivs": 1, "Seccomp": 2}
"""Of ``/proc/PID/status``, read as hexadecimal."""


class BwrapWorker:
    """Owns the process tree, its control group, the pipe and the files that catch its output.

    The tree is bubblewrap's monitor (our child), its first process inside (number 1 of the new process namespace) and
    the worker. Killing the first process inside kills all others, whatever they ignore.
    """

    def __init__(self, plan: BwrapPlan, spec: SandboxSpec) -> None:
        """Start it up to the point where the worker waits for its first message. Raises SandboxError."""
        end_orphans_once(os.getpid())
        self._plan = plan
        self._uid = fresh_uid() if plan.as_root else os.geteuid()
        self._home = find_cgroup_home()
        self._cgroup: Cgroup | None = None
        self._init: Descendant | None = None
        self._worker: Descendant | None = None
        self._guard = threading.Lock()
        self._ended = False
        self._outputs = (os.memfd_create("stdout"), os.memfd_create("stderr"))
        with contextlib.ExitStack() as ours:
            try:
                self._start(spec, ours)
            except (OSError, SandboxError, subprocess.SubprocessError) as error:
                said = " ".join(self.leftovers(2000)).strip()
                self.end()
                raise SandboxError(f"the bubblewrap sandbox did not start: {said or error}") from error
            except BaseException:
                self.end()
                raise
        self.setup: dict[str, Any] = {
            "capture": [self._outputs[0], 2],
            "own_pids": True,
            "rlimits": self._rlimits(spec),
            "site": [str(folder) for folder in plan.python.sites_inside],
        }

    def confirm(self) -> Isolation:
        """Read what the kernel says of the worker: never uid 0, no capability, the filter on."""
        assert self._init is not None
        self._worker = child_of(self._init.pid)
        if self._worker is None:
            raise SandboxError("the bubblewrap sandbox did not start: its worker is gone")
        status = self._worker.status()
        uids = {int(uid) for uid in status["Uid"].split()}
        wrong = [name for name, value in _EXPECTED.items() if int(status[name], 16) != value]
        if 0 in uids or wrong:
            raise SandboxError(f"the bubblewrap sandbox is not isolated: uids {sorted(uids)}, wrong {wrong}")
        return Isolation(
            engine="bubblewrap",
            boundary="namespaces",
            uid=min(uids),
            seccomp=True,
            userns=self._plan.way == "userns",
            network=False,
            memory="cgroup" if "memory" in self._home else "per-process",
            pids="cgroup" if "pids" in self._home else "rlimit",
        )

    def exited(self) -> bool:
        """Whether the sandbox is gone."""
        return self._ended or self._child.exited()

    def interrupt(self) -> None:
        """Send SIGINT to the worker."""
        with self._guard:
            if self._worker is not None and not self._ended:
                self._worker.signal(signal.SIGINT)

    def expire(self, at_s: float) -> None:
        """End it by itself at this monotonic time."""
        self._child.expires_at_s = at_s

    def oom_kills(self) -> int:
        """How often the kernel has killed one of its processes for memory."""
        return 0 if self._cgroup is None or self._ended else self._cgroup.oom_kills()

    def leftovers(self, limit_bytes: int) -> tuple[str, str]:
        """Standard output and error since the last execution began, from files that outlive the worker."""
        if self._ended:
            return "", ""
        out, err = (os.pread(file, limit_bytes, 0).decode("utf-8", "replace") for file in self._outputs)
        return out, err

    def end(self) -> None:
        """Kill every process, then free descriptors and the control group."""
        with self._guard:
            if self._ended:
                return
            self._ended = True
        child: Child | None = getattr(self, "_child", None)
        if child is not None:
            if self._init is None:
                _kill_with_children(child)
            else:
                self._init.signal(signal.SIGKILL)
                if not child.wait(END_S):
                    child.kill()
            if child.wait(END_S):
                child.forget()
            self.pipe.close()
        if self._cgroup is not None:
            self._cgroup.close()
        for process in (self._init, self._worker):
            if process is not None:
                process.forget()
        for file in self._outputs:
            os.close(file)

    def _start(self, spec: SandboxSpec, ours: contextlib.ExitStack) -> None:
        """Start bubblewrap, put its first process into the control group, and let it go on."""
        with contextlib.ExitStack() as theirs:
            requests_out, requests_in = _pipe(theirs, kept=1)
            replies_out, replies_in = _pipe(theirs, kept=0)
            info_out, info_in = _pipe(theirs, kept=0)
            block_out, block_in = _pipe(theirs, kept=1)
            ours.callback(os.close, info_out)
            ours.callback(os.close, block_in)
            filter_file = _file(theirs, seccomp_program())
            options = bwrap_options(self._plan, spec)
            options += ["--seccomp", str(filter_file), "--info-fd", str(info_in), "--block-fd", str(block_out)]
            option_file = _file(theirs, b"".join(os.fsencode(option) + b"\0" for option in options))
            command = [str(self._plan.bwrap), "--args", str(option_file), "--", *bwrap_command(self._plan, self._uid)]
            passed = {
                "stdin": requests_out,
                "stdout": replies_in,
                "stderr": self._outputs[1],
                "pass_fds": (self._outputs[0], filter_file, info_in, block_out, option_file),
            }
            if self._plan.as_root and self._plan.way == "userns":
                passed.update(user=self._uid, group=self._uid, extra_groups=[])
            try:
                self._child = Child(command, passed)
            except BaseException:
                os.close(requests_in)
                os.close(replies_out)
                raise
        self.pipe = frame_pipe(requests_in, replies_out, self._child.exited_fd, spec.limits)
        self._init = Descendant(_first_process(info_out))
        try:
            self._cgroup = Cgroup(self._home, spec.limits)
            self._cgroup.add([self._init.pid])
        except OSError:
            self._home = CgroupHome()
        os.write(block_in, b"x")

    def _rlimits(self, spec: SandboxSpec) -> dict[str, int]:
        """Set by the worker on itself before it runs code; only ever lowered, which needs no privilege.

        Writable memory of one process stays below the group's limit, so that code gets a MemoryError rather than the
        kernel's kill; without a group the whole address space is bounded.
        """
        limits = spec.limits
        rlimits = {
            "RLIMIT_CORE": 0,
            "RLIMIT_DATA": limits.memory_bytes * 7 // 8,
            "RLIMIT_FSIZE": limits.file_bytes,
            "RLIMIT_MEMLOCK": 1 << 16,
            "RLIMIT_MSGQUEUE": 0,
            "RLIMIT_NOFILE": limits.nofile,
            "RLIMIT_NPROC": limits.pids,
        }
        if "memory" not in self._home:
            rlimits["RLIMIT_AS"] = limits.memory_bytes
        return rlimits


def _kill_with_children(child: Child) -> None:
    """End a bubblewrap that is not known to have tied its first process to its own life yet."""
    child.stop()
    inside = child_of(child.pid)
    child.kill()
    if inside is not None:
        inside.signal(signal.SIGKILL)
        inside.forget()


def _pipe(theirs: contextlib.ExitStack, *, kept: int) -> tuple[int, int]:
    """A pipe of which the end that is not ``kept`` goes to the child and is closed here with ``theirs``."""
    ends = os.pipe()
    theirs.callback(os.close, ends[1 - kept])
    return ends


def _file(theirs: contextlib.ExitStack, content: bytes) -> int:
    """A nameless file for the child to read from its start."""
    fd = os.memfd_create(owner_name())
    theirs.callback(os.close, fd)
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _first_process(info_fd: int) -> int:
    """The number, here outside, of the sandbox's first process, as bubblewrap tells it."""
    said = b""
    deadline_s = time.monotonic() + INFO_S
    while b"}" not in said:
        ready, _, _ = select.select([info_fd], [], [], max(0.0, deadline_s - time.monotonic()))
        piece = os.read(info_fd, 4096) if ready else b""
        if not piece:
            raise SandboxError("bubblewrap made no namespaces")
        said += piece
    return int(json.loads(said)["child-pid"])
