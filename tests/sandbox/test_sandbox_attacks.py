"""Attacks on the host from inside a sandbox, started in each way that this user can take."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyeloop.sandbox import SandboxSpec
from keyeloop.sandbox.bubblewrap import Bubblewrap
from keyeloop.sandbox.bwrap_plan import Way
from keyeloop.sandbox.session import WorkerSandbox
from tests.sandbox.attacks import TRY, attacks
from tests.sandbox.engines import QUICK, Engine, plan

pytestmark = pytest.mark.sandbox
NAMES = tuple(attacks("/", 1, "x", 1))
CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")


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
        self.victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])

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
    yield host
    host.close()


@pytest.mark.parametrize("name", NAMES)
def test_an_attack_is_refused(walled: WorkerSandbox, host: Host, name: str) -> None:
    before = CORE_PATTERN.read_bytes()
    result = walled.exec(host.attacks[name])
    assert (result.status, result.stdout, result.stderr) == ("ok", "held\n", "")
    assert CORE_PATTERN.read_bytes() == before
    assert host.victim.poll() is None


@pytest.mark.parametrize("name", ["read the host", "reach a network", "touch other processes"])
def test_the_same_attack_succeeds_where_there_is_no_wall(host: Host, name: str) -> None:
    """Otherwise the attack, not the wall, would be what fails. The signal is taken out."""
    code = host.attacks[name].replace(", 9)", ", 0)")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert run.stdout.strip() and "held" not in run.stdout


def test_the_environment_of_the_host_is_nowhere(wall: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = secrets.token_hex(16)
    monkeypatch.setenv("SOME_API_KEY", canary)
    look = (
        "import glob\nfor path in glob.glob('/proc/*/environ'):\n"
        "    attempt(path, lambda: print(open(path, 'rb').read()))\nprint(os.environ)"
    )
    with wall.open(env={"GIVEN": "yes"}) as sandbox:
        result = sandbox.exec(TRY + look)
    assert canary not in result.stdout and "SOME_API_KEY" not in result.stdout
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
    uid = walled.isolation.uid
    assert uid != 0 and walled.isolation.seccomp and not walled.isolation.network
    running = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
        except OSError:
            continue
        if len(fields["NSpid"].split()) > 1 and fields["Uid"].split()[0] == str(uid):
            running.append(fields)
    assert any(fields["Name"].startswith("python") for fields in running)
    for fields in running:
        assert "0" not in fields["Uid"].split() and fields["Seccomp"].strip() == "2"


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user has one uid for all")
def test_every_sandbox_has_a_uid_and_files_of_its_own(wall: Engine, walled: WorkerSandbox) -> None:
    walled.put("mine.txt", b"of the first")
    with wall.open() as second:
        assert second.isolation.uid != walled.isolation.uid
        assert second.exec("import os\nos.listdir('/work')").displays[0].data["text/plain"] == "[]"
