"""Attacks on the host from inside a sandbox, started in each way that this user can take."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyeloop.sandbox import SandboxSpec
from keyeloop.sandbox.bubblewrap import Bubblewrap
from keyeloop.sandbox.bwrap_plan import Way
from keyeloop.sandbox.docker.view import parse_status
from keyeloop.sandbox.session import WorkerSandbox
from keyeloop.sandbox.spec import WORK
from tests.sandbox.attacks import TELL, TRY, attacks
from tests.sandbox.bombs import BOMBS, SMALL
from tests.sandbox.engines import QUICK, Engine, plan
from tests.sandbox.host_view import HostState, Trace

pytestmark = pytest.mark.sandbox
NAMES = tuple(attacks("/", 1, "x", 1))
FETCH_S = 3
"""For ending a worker, and for looking through a folder full of files."""


class Host:
    """Things on this side of the wall that an attack would like to reach."""

    def __init__(self, folder: Path) -> None:
        self.secret = folder / "secret.txt"
        self.secret.write_text("the host's secret")
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.abstract_name = f"keyeloop-{secrets.token_hex(8)}"
        self.abstract = socket.socket(socket.AF_UNIX)
        self.abstract.bind("\0" + self.abstract_name)
        self.abstract.listen()
        self.canary = secrets.token_hex(16)
        self.victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])

    def state(self) -> HostState:
        return HostState.now(self.victim, [self.secret])

    @property
    def attacks(self) -> dict[str, str]:
        port = self.listener.getsockname()[1]
        return dict(attacks(str(self.secret), port, self.abstract_name, self.victim.pid))

    def close(self) -> None:
        self.victim.kill()
        self.victim.wait()
        self.listener.close()
        self.abstract.close()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = Host(tmp_path_factory.mktemp("host"))
    os.environ["SOME_API_KEY"] = host.canary
    yield host
    del os.environ["SOME_API_KEY"]
    host.close()


@pytest.fixture(scope="module")
def bombed(wall: Engine, host: Host) -> Iterator[WorkerSandbox]:
    """One sandbox a module and wall that attacks may end, with bounds that are reached quickly."""
    with wall.open(SMALL) as sandbox:
        yield sandbox


@pytest.mark.parametrize("name", NAMES)
def test_an_attack_is_refused(walled: WorkerSandbox, host: Host, name: str) -> None:
    before = host.state()
    result = walled.exec(host.attacks[name])
    before.require_same(host.state())
    assert (result.status, result.stdout, result.stderr) == ("ok", "held\n", "")
    after = walled.exec("print('next')")
    assert (after.status, after.stdout, after.state_lost) == ("ok", "next\n", False)


@pytest.mark.parametrize("name", list(BOMBS))
def test_a_bomb_costs_at_most_the_state(bombed: WorkerSandbox, host: Host, name: str) -> None:
    bomb = BOMBS[name]
    bombed.exec("marker = 1")
    before, begun_s = host.state(), time.monotonic()
    result = bombed.exec(bomb.code)
    took_s = time.monotonic() - begun_s
    before.require_same(host.state())
    assert result.status in bomb.endings, result
    assert took_s < SMALL.wall_s + SMALL.interrupt_grace_s + FETCH_S
    if bomb.most is not None and result.status == "ok":
        assert int(result.stdout.split()[-1]) <= bomb.most
    assert len(result.stdout) < 2 * SMALL.stdout_bytes and host.canary not in result.stdout + result.stderr
    after = bombed.exec("print('marker' in globals())")
    assert after.status == "ok", after
    assert after.stdout == "True\n" or result.state_lost or after.state_lost


@pytest.mark.parametrize("name", ["read the host", "reach a network", "touch other processes"])
def test_the_same_attack_succeeds_where_there_is_no_wall(host: Host, name: str) -> None:
    """Otherwise the attack, not the wall, would be what fails. The signal is taken out."""
    code = host.attacks[name].replace(", 9)", ", 0)")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert run.stdout.strip() and "held" not in run.stdout


def test_the_environment_of_the_host_is_nowhere(wall: Engine, host: Host) -> None:
    look = (
        "import glob\nfor path in glob.glob('/proc/*/environ'):\n"
        "    attempt(path, lambda: print(open(path, 'rb').read()))\nprint(os.environ)"
    )
    with wall.open(env={"GIVEN": "yes"}) as sandbox:
        result = sandbox.exec(TRY + look)
    assert host.canary not in result.stdout and "SOME_API_KEY" not in result.stdout
    assert "'GIVEN': 'yes'" in result.stdout


def test_command_lines_inside_do_not_name_paths_of_the_host(way: Way, tmp_path: Path) -> None:
    with Bubblewrap(SandboxSpec(limits=QUICK), plan=plan(way)) as sandbox:
        listed = sandbox.exec("print(open('/proc/1/cmdline').read(), open('/proc/self/cmdline').read())").stdout
    assert (
        "bwrap" in listed
        and "--ro-bind" not in listed
        and str(Path.cwd()) not in listed.replace(str(plan(way).bwrap), "")
    )


def test_the_host_sees_an_ordinary_user_without_rights(walled: WorkerSandbox) -> None:
    """Of gVisor, which has a root process to serve files: what runs code."""
    uid = walled.isolation.uid
    assert uid != 0 and walled.isolation.seccomp and not walled.isolation.network
    gvisor = walled.isolation.boundary == "gvisor"
    seen = [of_pid(pid) for pid in (Trace.of(walled) if gvisor else Trace(uid)).pids()]
    if gvisor:
        running = [fields for fields in seen if "0" not in fields["Uid"].split()]
    else:
        running = [fields for fields in seen if len(fields["NSpid"].split()) > 1]
    assert any(gvisor or fields["Name"].startswith("python") for fields in running)
    for fields in running:
        assert "0" not in fields["Uid"].split() and fields["Seccomp"].strip() == "2"


def of_pid(pid: int) -> dict[str, str]:
    """``/proc/PID/status`` by field."""
    return parse_status(Path(f"/proc/{pid}/status").read_text())


def test_a_second_sandbox_sees_nothing_of_the_first(wall: Engine, walled: WorkerSandbox) -> None:
    walled.put("mine.txt", b"of the first")
    walled.exec(
        "import os, socket, subprocess, time\n"
        "open('/tmp/mine', 'w').write('x'); open('/dev/shm/mine', 'w').write('x')\n"
        "named, abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)\n"
        "named.bind('/tmp/socket'); abstract.bind('\\0first'); named.listen(); abstract.listen()\n"
        "child = subprocess.Popen(['sleep', '60'])"
    )
    look = (
        f"for path in ('{WORK}/mine.txt', '/tmp/mine', '/dev/shm/mine'):"
        + """
    attempt(path, open, path)
for name in ('/tmp/socket', chr(0) + 'first'):
    attempt('a socket', socket.socket(socket.AF_UNIX).connect, name)
commands = []
for name in os.listdir('/proc'):
    if name.isdigit():
        attempt_read = open(f'/proc/{name}/cmdline', 'rb').read()
        commands.append(attempt_read)
want('processes', any(b'sleep' in command for command in commands), False)
"""
    )
    with wall.open() as second:
        assert second.exec(TRY + look + TELL).stdout == "held\n"
    walled.exec("child.kill(); child.wait(); named.close(); abstract.close()")


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user has one uid for all")
def test_every_sandbox_has_a_uid_and_files_of_its_own(wall: Engine, walled: WorkerSandbox) -> None:
    walled.put("mine.txt", b"of the first")
    with wall.open() as second:
        if wall.gvisor:  # the host's is gVisor's: its kernel keeps those that count
            inside = [sandbox.exec("import os\nprint(os.getuid())").stdout for sandbox in (walled, second)]
            assert inside[0] != inside[1] and "0\n" not in inside
        else:
            assert second.isolation.uid != walled.isolation.uid
        assert second.exec("import os\nos.listdir('/work')").displays[0].data["text/plain"] == "[]"
