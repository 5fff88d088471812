"""A server's process group: real processes that ignore polite signals, and every way in which a launcher can end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from keyeloop.model_backend.sglang.serve.process import ServerProcess
from keyeloop.runtime.errors import BackendError

ROOT = Path(__file__).resolve().parents[2]
STUBBORN = Path(__file__).with_name("stubborn_server.py")
ENDS_WITHIN_S = 120.0
"""On a machine that others keep busy."""
LAUNCHER = """
import os, signal, sys, time
from pathlib import Path
from keyeloop.model_backend.sglang.serve.process import ServerProcess

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup
folder = Path(sys.argv[1])
with ServerProcess([sys.executable, *sys.argv[2:]], dict(os.environ), folder / "log", grace_s=0.2):
    time.sleep(600)
"""


def until(holds: Callable[[], bool], what: str, within_s: float = ENDS_WITHIN_S) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def started(folder: Path) -> list[int]:
    """The ids of the stubborn program and its child, once both run."""
    files = [folder / "parent", folder / "child"]
    until(lambda: all(file.exists() for file in files), "it did not start")
    return [int(file.read_text()) for file in files]


def runs(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: list[int]) -> None:
    until(lambda: not any(map(runs, pids)), "something was left behind")


@pytest.mark.parametrize("leave", [[], ["leave"]], ids=["in its group", "a child in a session of its own"])
def test_stopping_ends_what_ignores_polite_signals(tmp_path: Path, leave: list[str]) -> None:
    log = tmp_path / "logs" / "log"
    with ServerProcess(
        [sys.executable, str(STUBBORN), str(tmp_path), *leave], dict(os.environ), log, grace_s=0.2
    ) as server:
        pids = started(tmp_path)
        assert server.ended() is None
        for pid in pids:
            os.kill(pid, signal.SIGINT)
        assert all(map(runs, pids)), "the test's program heeds Ctrl-C"
    assert not any(map(runs, pids)), "leaving the context returns when all is gone"
    assert server.ended() == 128 + signal.SIGKILL
    assert server.last_lines() == ["listening", "listening"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_nothing_outlives_a_launcher_that_is_killed(tmp_path: Path, how: signal.Signals) -> None:
    command = [sys.executable, "-c", LAUNCHER, str(tmp_path), str(STUBBORN), str(tmp_path)]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}) as launcher:
        pids = started(tmp_path)
        launcher.send_signal(how)
    gone(pids)


def test_nothing_outlives_its_guard(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("parent-death signals are Linux's")
    with ServerProcess([sys.executable, str(STUBBORN), str(tmp_path)], dict(os.environ), tmp_path / "log") as server:
        parent, child = started(tmp_path)
        os.kill(server._guard.pid, signal.SIGKILL)
        gone([parent])
        os.kill(child, signal.SIGKILL)  # SGLang's own children ask for the same signal; this test's does not


SHARING = """
import mmap, os, sys, time

def mapped(name):
    with open("/dev/shm/" + name, "a+b") as file:
        file.truncate(4096)
        return mmap.mmap(file.fileno(), 4096)

*ours, last = sys.argv[1:]
kept = [mapped(name) for name in ours]
if os.fork() == 0:  # of the last file only a child in a session of its own knows
    os.setsid()
    kept = mapped(last)
    print("mapped", flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="shared memory has no folder here")
@pytest.mark.parametrize("how", ["stopped", "killed", "its launcher killed"])
def test_nothing_of_its_own_is_left_in_shared_memory(tmp_path: Path, how: str) -> None:
    """What SGLang leaves when it is killed; what was there before, or has another kind of name, stays."""
    tag = uuid4().hex
    loads, queue, other, earlier = (
        f"{name}_{tag}" for name in ("sglang_loads", "sgl_shm_mq", "mine", "sglang_loads_old")
    )
    made = [Path("/dev/shm", name) for name in (loads, queue, other, earlier)]
    made[3].write_bytes(b"here before")
    command = [sys.executable, "-uc", SHARING, earlier, other, queue, loads]
    try:
        if how == "its launcher killed":
            launching = [sys.executable, "-c", LAUNCHER, str(tmp_path), *command[1:]]
            with subprocess.Popen(launching, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}) as launcher:
                log = tmp_path / "log"
                until(lambda: log.is_file() and "mapped" in log.read_text(), "it did not start")
                launcher.send_signal(signal.SIGKILL)
        else:
            with ServerProcess(command, dict(os.environ), tmp_path / "log", grace_s=0.2) as server:
                until(lambda: bool(server.last_lines()), "it did not start")
                if how == "killed":
                    time.sleep(2.5)  # it is looked at every second
                    os.killpg(server_group(server), signal.SIGKILL)
                    assert server.ended(ENDS_WITHIN_S) == 128 + signal.SIGKILL
        until(lambda: not made[0].exists() and not made[1].exists(), "a file was left behind")
        assert made[2].exists() and made[3].exists()
    finally:
        for path in made:
            path.unlink(missing_ok=True)


def server_group(server: ServerProcess) -> int:
    """The process group of the command, whose leader is the guard's only child."""
    guard = server._guard.pid
    return int(Path(f"/proc/{guard}/task/{guard}/children").read_text().split()[0])


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path) -> None:
    server = ServerProcess(
        [sys.executable, str(STUBBORN), str(tmp_path)], dict(os.environ), tmp_path / "log", grace_s=300
    )
    pids = started(tmp_path)
    began_s = time.monotonic()
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            server.stop()
    finally:
        signal.signal(signal.SIGINT, old)
    assert time.monotonic() - began_s < ENDS_WITHIN_S and not any(map(runs, pids))


def test_a_polite_server_ends_by_itself(tmp_path: Path) -> None:
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print(1); time.sleep(600)"
    with ServerProcess([sys.executable, "-uc", code], dict(os.environ), tmp_path / "log", grace_s=300) as server:
        until(lambda: bool(server.last_lines()), "it did not start")
    assert server.ended() == 7


def test_an_end_is_told_with_its_last_words(tmp_path: Path) -> None:
    code = r"import os; print('loading 1%\rloading 2%\r'); print('out of memory'); os.kill(os.getpid(), 11)"
    with ServerProcess([sys.executable, "-uc", code], {}, tmp_path / "log") as server:
        assert server.ended(wait_s=ENDS_WITHIN_S) == 128 + signal.SIGSEGV
        assert server.last_lines() == ["loading 2%", "out of memory"]


def test_it_gets_the_given_environment_and_nothing_to_read(tmp_path: Path) -> None:
    code = "import os, sys; print(os.environ.get('LEFT'), os.environ.get('HOME'), repr(sys.stdin.read()))"
    with ServerProcess([sys.executable, "-c", code], {"LEFT": "1"}, tmp_path / "log") as server:
        assert server.ended(wait_s=ENDS_WITHIN_S) == 0
    assert server.last_lines() == ["1 None ''"]


def test_a_log_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BackendError, match="cannot be started"):
        ServerProcess([sys.executable], {}, tmp_path / "file" / "log")
