"""What code can use up: output, processes, threads, memory, room in every writable folder."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keyeloop.sandbox import ExecResult
from keyeloop.sandbox.cgroup import find_cgroup_home
from tests.sandbox.engines import QUICK, Engine
from tests.sandbox.host_view import Trace, wait_for

pytestmark = [pytest.mark.sandbox, pytest.mark.usefixtures("shared")]
MIB = 1 << 20


def test_a_flood_of_output_is_cut_in_its_middle(engine: Engine) -> None:
    limits = replace(QUICK, stdout_bytes=1000, file_bytes=4 * MIB)
    with engine.open(limits) as sandbox:
        result = sandbox.exec("for i in range(100_000): print(i)")
        assert result.status == "ok" and result.truncated and len(result.stdout) < 1100
        assert result.stdout.startswith("0\n1\n") and result.stdout.endswith("99999\n")
        assert "bytes left out" in result.stdout
        endless = sandbox.exec("import subprocess\nsubprocess.run(['yes'])\nwhile True: print('x' * 1000)")
        assert endless.truncated and endless.error is not None and endless.error.name == "OSError"
        assert sandbox.exec("print('quiet')").stdout == "quiet\n"


def test_many_and_long_displays_fit_their_frame(engine: Engine) -> None:
    with engine.open(QUICK) as sandbox:
        result = sandbox.exec("for i in range(500): display('\\u00e9\\x01' * 100_000)\n'\\ud800'")
        assert result.status == "ok" and 0 < len(result.displays) <= 32
        assert sum(len(str(display.data)) for display in result.displays) < 8 * MIB


def counted(result: ExecResult) -> int:
    return int(result.stdout.split()[-1])


def test_processes_and_threads_are_bounded(engine: Engine) -> None:
    forks = (
        "import os, signal, time\n"
        "children = []\n"
        "try:\n"
        "    for _ in range(1500):\n"
        "        child = os.fork()\n"
        "        if child == 0: time.sleep(60); os._exit(0)\n"
        "        children.append(child)\n"
        "except OSError: pass\n"
        "for child in children: os.kill(child, signal.SIGKILL); os.waitpid(child, 0)\n"
        "print(len(children))"
    )
    threads = (
        "import threading\n"
        "stop = threading.Event()\nstarted = []\n"
        "try:\n"
        "    for _ in range(1500): t = threading.Thread(target=stop.wait); t.start(); started.append(t)\n"
        "except RuntimeError: pass\n"
        "stop.set()\nfor t in started: t.join()\n"
        "print(len(started))"
    )
    with engine.open(replace(QUICK, pids=32)) as sandbox:
        for code in (forks, threads):
            result = sandbox.exec(code)
            if engine.gvisor and result.status != "ok":  # its kernel bounds no processes: the host's group ends it
                assert result.status in ("crashed", "oom") and result.state_lost, result
            else:
                assert result.status == "ok" and 20 <= counted(result) <= 32, result
        assert sandbox.exec("print('alive')").stdout == "alive\n"


def test_a_fork_bomb_ends_with_its_execution(engine: Engine) -> None:
    with engine.open(replace(QUICK, pids=32)) as sandbox:
        trace = Trace.of(sandbox)
        bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
        assert sandbox.exec(bomb, timeout_s=0.5).status in ("timeout", "crashed")
        sandbox.reset()
        assert sandbox.exec("print(1)").stdout == "1\n"
    assert wait_for(lambda: not trace.pids(), 2)


def test_memory_is_bounded(engine: Engine) -> None:
    with engine.open(replace(QUICK, memory_bytes=128 * MIB)) as sandbox:
        for code in ("data = bytearray(1 << 30)", "pieces = []\nwhile True: pieces.append(b'x' * (1 << 20))"):
            sandbox.exec("x = 1")
            result = sandbox.exec(code)  # gVisor's own memory counts, and one process of the host holds that of all
            assert result.status == "oom" and result.state_lost in (False, engine.gvisor), result
            after = sandbox.exec("pieces = None\nprint('x' in globals())")
            assert after.stdout == f"{not result.state_lost}\n"


@pytest.mark.skipif("memory" not in find_cgroup_home(), reason="no control group can be made here")
def test_memory_is_bounded_for_all_processes_together(engine: Engine) -> None:
    shared_map = "import mmap\nm = mmap.mmap(-1, 1 << 30)\nfor i in range(0, 1 << 30, 4096): m[i] = 1"
    with engine.open(replace(QUICK, memory_bytes=128 * MIB)) as sandbox:
        assert sandbox.isolation.memory == "cgroup"
        alone = sandbox.exec("x = 1\n" + shared_map)
        assert (alone.status, alone.state_lost) == ("oom", True)
        child = sandbox.exec(
            "import os\nx = 2\nif os.fork() == 0:\n    "
            + shared_map.replace("\n", "\n    ")
            + "\n    os._exit(0)\nprint(os.wait()[1])"
        )
        if engine.gvisor:  # one process of the host holds the memory of all
            assert (child.status, child.state_lost) == ("oom", True)
            assert sandbox.exec("print(1)").stdout == "1\n"
        else:
            assert (child.status, child.stdout, child.state_lost) == ("oom", "9\n", False)
            assert sandbox.exec("print(x)").stdout == "2\n"


@pytest.mark.parametrize("folder", ["/work", "/out", "/tmp", "/dev/shm"])
def test_every_writable_folder_has_a_bound(engine: Engine, folder: str) -> None:
    small = replace(
        QUICK, work_bytes=MIB, tmp_bytes=MIB, artifacts_total_bytes=MIB, artifact_bytes=MIB // 2, file_bytes=MIB // 2
    )
    code = (
        "import os\n"
        "total, errors = 0, set()\n"
        "for n in range(10):\n"
        "    try:\n"
        f"        with open(f'{folder}/fill{{n}}', 'wb', buffering=0) as f:\n"
        "            while True: total += f.write(bytes(65536))\n"
        "    except OSError as error: errors.add(error.strerror)\n"
        f"sparse = os.open('{folder}/fill0', os.O_WRONLY)\n"
        "try: os.truncate(sparse, 1 << 40)\n"
        "except OSError as error: errors.add(error.strerror)\n"
        f"[os.unlink(f'{folder}/fill{{n}}') for n in range(10)]\n"
        "print(total, sorted(errors))"
    )
    with engine.open(small) as sandbox:
        assert sandbox.exec(code).stdout == "1048576 ['File too large', 'No space left on device']\n"
