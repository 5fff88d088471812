"""How an execution can end badly, and that the host always gets a result in time and nothing is left behind."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from keyeloop.sandbox.bwrap_plan import FIRST_UID, UIDS
from keyeloop.sandbox.cgroup import find_cgroup_home
from tests.sandbox.engines import QUICK, Engine
from tests.sandbox.host_view import Trace, wait_for

pytestmark = [pytest.mark.sandbox, pytest.mark.usefixtures("shared")]


def test_time_runs_out_and_state_is_kept(engine: Engine) -> None:
    with engine.open(QUICK) as sandbox:
        sandbox.exec("x = 5")
        for code in ("print('on')\nwhile True: pass", "print('on')\nimport time\ntime.sleep(60)"):
            result = sandbox.exec(code, timeout_s=0.3)
            assert (result.status, result.stdout, result.state_lost) == ("timeout", "on\n", False)
            assert 0.3 <= result.wall_s < 0.3 + QUICK.interrupt_grace_s
        assert sandbox.exec("x").displays[0].data["text/plain"] == "5"


def test_what_ignores_the_interrupt_is_killed_with_its_children(engine: Engine) -> None:
    code = (
        "print('started', flush=True)\n"
        "import os, signal, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if os.fork() == 0: os.setsid()\n"
        "while True: time.sleep(1)"
    )
    with engine.open(QUICK) as sandbox:
        trace = Trace.of(sandbox)
        result = sandbox.exec(code, timeout_s=0.3)
        assert (result.status, result.stdout, result.state_lost) == ("timeout", "started\n", True)
        assert result.wall_s < 0.3 + QUICK.interrupt_grace_s + 1
        assert wait_for(lambda: not trace.pids(), 1), trace.pids()
        again = sandbox.exec("print('fresh')")
        assert (again.status, again.stdout, again.state_lost) == ("ok", "fresh\n", False)


@pytest.mark.parametrize(
    "code",
    [
        "import os\nprint('last words')\nos._exit(0)",
        "import os, signal\nprint('last words')\nos.kill(os.getpid(), signal.SIGKILL)",
        "import ctypes\nprint('last words')\nctypes.string_at(0)",
        "import os\nprint('last words')\nos.closerange(3, 300)",
        "import os\nprint('last words')\nif os.fork(): os._exit(0)\nimport time\ntime.sleep(60)",
    ],
    ids=["exit", "kill", "segfault", "hang-up", "orphan-holds-the-pipe"],
)
def test_a_worker_that_is_gone_is_told_and_replaced(engine: Engine, code: str) -> None:
    with engine.open(QUICK) as sandbox:
        result = sandbox.exec("x = 1\n" + code)
        assert (result.status, result.stdout, result.state_lost) == ("crashed", "last words\n", True)
        assert result.wall_s < 3
        after = sandbox.exec("x")
        assert after.error is not None and after.error.name == "NameError" and not after.state_lost


FIND_PIPE = (
    "import json, os, stat, struct\n"
    "pipes = [fd for fd in range(3, 300) if os.path.exists(f'/proc/self/fd/{fd}')"
    " and stat.S_ISFIFO(os.fstat(fd).st_mode)]\n"
    "replies = max(pipes)\n"
    "def send(head, text):\n"
    "    rest = head + text\n"
    "    while rest: rest = rest[os.write(replies, rest):]\n"
)
GOOD = "dict(status='ok', stdout='forged', stderr='', truncated=False, error=None, displays=[], files=[], refused=[])"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("send(struct.pack('!II', 1 << 30, 0), b'')", "protocol"),
        ("send(struct.pack('!II', 2, 0xffffffff), b'{}')", "protocol"),
        ("send(struct.pack('!II', 5, 0), b'{nope')", "protocol"),
        ("send(struct.pack('!II', 200000, 0), b'[' * 200000)", "protocol"),
        ("send(struct.pack('!II', 2, 0), b'[]')", "protocol"),
        ("send(struct.pack('!II', 2, 0), b'{}')", "protocol"),
        ("send(struct.pack('!II', 9, 0), b'{\"id\":99}')", "protocol"),
        ("send(struct.pack('!II', 400, 0), b'{')", "timeout"),
        ("os.write(replies, os.urandom(100_000))", "protocol"),
    ],
    ids=["huge", "huge-raw", "no-json", "deep", "no-object", "empty", "other-id", "half", "noise"],
)
def test_forged_frames_end_the_worker_and_cost_no_memory(engine: Engine, code: str, status: str) -> None:
    with engine.open(replace(QUICK, wall_s=1)) as sandbox:
        sandbox.exec(FIND_PIPE)
        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        result = sandbox.exec(code + "\nimport time; time.sleep(5)")
        assert result.status == status and result.state_lost
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 100 * 1024
        assert sandbox.exec("print(1)").stdout == "1\n"


def test_a_forged_reply_is_a_claim_and_the_true_one_then_a_breach(engine: Engine) -> None:
    with engine.open(QUICK) as sandbox:
        sandbox.exec(FIND_PIPE)
        forge = f"text = json.dumps(dict({GOOD}, id=2)).encode()\nsend(struct.pack('!II', len(text), 0), text)"
        assert sandbox.exec(forge).stdout == "forged"
        assert sandbox.exec("print('true')").status == "protocol"
        assert sandbox.exec("print('true')").stdout == "true\n"


def test_an_idle_worker_ends_and_the_next_call_says_so(engine: Engine) -> None:
    with engine.open(replace(QUICK, idle_s=0.3)) as sandbox:
        trace = Trace.of(sandbox)
        sandbox.exec("x = 1")
        if trace.tells:
            assert wait_for(lambda: not trace.pids(), 4)
        else:
            time.sleep(2)
        late = sandbox.exec("x")
        assert late.state_lost and late.error is not None and late.error.name == "NameError"
        assert not sandbox.exec("1").state_lost


def test_a_session_has_an_end(engine: Engine) -> None:
    with engine.open(replace(QUICK, session_s=0.4)) as sandbox:
        sandbox.exec("x = 1")
        assert wait_for(lambda: sandbox.exec("1").state_lost, 5)


def test_the_host_killed_takes_the_sandbox_along(engine: Engine) -> None:
    code = (
        "from keyeloop.sandbox import open_sandbox\nfrom tests.sandbox.host_view import Trace\n"
        f"sandbox = open_sandbox(engine={engine.name!r})\nprint(repr(Trace.of(sandbox)), flush=True)\n"
        "sandbox.exec('import os\\nos.fork()\\nwhile True: pass')"
    )
    host = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env=dict(os.environ, PYTHONPATH="src:."), text=True
    )
    assert host.stdout is not None
    trace: Trace = eval(host.stdout.readline(), {"Trace": Trace})
    if not trace.tells:
        host.kill()
        host.communicate()
        pytest.skip("its processes cannot be told from others of this user")
    assert wait_for(lambda: len(trace.pids()) >= 2, 5)
    os.kill(host.pid, signal.SIGKILL)
    host.communicate()
    assert wait_for(lambda: not trace.pids(), 2), trace.pids()


@pytest.mark.skipif(os.geteuid() != 0, reason="uids and control groups of their own need root")
def test_nothing_is_left_behind(engine: Engine) -> None:
    def groups() -> list[Path]:
        folders = set(find_cgroup_home().folders.values())
        return [path for folder in folders for path in folder.glob(f"keyeloop-{os.getpid()}-*")]

    before = len(list(Path("/proc/self/fd").iterdir())), len(groups())
    for ending in ("1", "import os; os._exit(1)", "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"):
        with engine.open(replace(QUICK, wall_s=0.3)) as sandbox:
            sandbox.exec(ending)
            sandbox.start()
            uid, trace = sandbox.isolation.uid, Trace.of(sandbox)
            assert FIRST_UID <= uid < FIRST_UID + UIDS or (engine.gvisor and uid != 0)
        assert not trace.pids()
    assert (len(list(Path("/proc/self/fd").iterdir())), len(groups())) == before
