"""gVisor's runsc alone: what it keeps in, what the host sees of it, and that nothing of it stays."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from keyeloop.runtime.errors import SandboxUnavailable
from keyeloop.sandbox import Mount, SandboxSpec, open_sandbox
from keyeloop.sandbox.gvisor.engine import Runsc, choose_runsc
from keyeloop.sandbox.own_folder import make_folder, started
from tests.sandbox.attacks import attacks
from tests.sandbox.engines import QUICK
from tests.sandbox.host_view import wait_for

SPEC = SandboxSpec(limits=QUICK)


@pytest.fixture(scope="module")
def inside() -> Iterator[Runsc]:
    """One sandbox for questions that do not end it."""
    try:
        choose_runsc(SPEC)
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    with Runsc(SPEC) as sandbox:
        yield sandbox


@pytest.mark.gvisor
def test_it_has_a_kernel_of_its_own_and_keeps_state(inside: Runsc) -> None:
    about = inside.isolation
    assert (about.engine, about.boundary, about.network, about.seccomp) == ("runsc", "gvisor", False, True)
    assert about.uid != 0, "of gVisor's own process, as the host's kernel sees it"
    assert inside.exec("import os\nprint(os.uname().release)").stdout.strip() != os.uname().release
    assert inside.exec("x = 417").status == "ok" and inside.exec("print(x + 88)").stdout == "505\n"
    slow = inside.exec("while True: pass", timeout_s=0.5)
    assert (slow.status, slow.state_lost) == ("timeout", False)
    inside.put("sent", b"sent")
    assert inside.exec("open('/out/back', 'w').write(open('sent').read())").artifacts[0].size == 4
    assert inside.get("/out/back") == b"sent"


@pytest.mark.gvisor
@pytest.mark.parametrize("name", ["write the host", "reach a network", "touch other processes", "call the kernel"])
def test_an_attack_is_refused(inside: Runsc, name: str) -> None:
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        code = attacks("/etc/shadow", 1, "none", victim.pid)[name]
        assert inside.exec(code).stdout == "held\n" and victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


@pytest.mark.gvisor
def test_the_host_cannot_be_read(inside: Runsc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = secrets.token_hex(16)
    monkeypatch.setenv("SOME_API_KEY", canary)
    (tmp_path / "clip.txt").write_text("frames")
    mount = Mount(tmp_path.resolve() / "clip.txt", PurePosixPath("clip.txt"))
    look = (
        "import glob, os\nprint(os.environ, *(open(path, 'rb').read() for path in glob.glob('/proc/*/environ')))\n"
        "print(*os.listdir('/'), os.path.exists('/root'), os.path.exists('/etc/passwd'), open('/in/clip.txt').read())\n"
        "open('/in/clip.txt', 'a')"
    )
    with Runsc(SandboxSpec(limits=QUICK, mounts=(mount,))) as sandbox:
        result = sandbox.exec(look)
    assert canary not in result.stdout and "False False frames" in result.stdout
    assert result.error is not None and result.error.name in ("OSError", "PermissionError")


@pytest.mark.gvisor
@pytest.mark.usefixtures("inside")
def test_endings_are_told_and_leave_nothing() -> None:
    with Runsc(SPEC) as sandbox:
        ended = sandbox.exec("print('last words')\nimport os\nos._exit(3)")
        assert (ended.status, ended.stdout, ended.state_lost) == ("crashed", "last words\n", True)
        stubborn = "import os, signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nos.fork()\nwhile True: pass"
        assert sandbox.exec(stubborn, timeout_s=0.5).status == "timeout"
        filled = "import mmap\nm = mmap.mmap(-1, 2 << 30)\nfor i in range(0, 2 << 30, 4096): m[i] = 1"
        assert sandbox.exec(filled, timeout_s=30).status == "oom"
        assert sandbox.exec("print(1)").stdout == "1\n"
        folder = sandbox._running._folder  # type: ignore[union-attr]
        assert folder.is_dir()
    assert not folder.exists() and not processes_about(folder)


@pytest.mark.gvisor
@pytest.mark.usefixtures("inside")
def test_the_host_killed_takes_the_sandbox_along() -> None:
    program = (
        "from keyeloop.sandbox.gvisor.engine import Runsc\nsandbox = Runsc()\nsandbox.start()\n"
        "print(sandbox._running._folder, flush=True)\nsandbox.exec('while True: pass', timeout_s=600)"
    )
    host = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env=dict(os.environ, PYTHONPATH="src"), text=True
    )
    assert host.stdout is not None
    folder = Path(host.stdout.readline().strip())
    assert processes_about(folder)
    os.kill(host.pid, signal.SIGKILL)
    host.communicate()
    assert wait_for(lambda: not processes_about(folder), 5), processes_about(folder)
    with Runsc(SPEC) as sandbox:
        assert sandbox.exec("print(1)").stdout == "1\n"
    assert not folder.exists(), "swept"


def test_folders_of_dead_processes_are_swept_and_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    gone = subprocess.Popen(["true"])
    gone.wait()
    ours = f"keyeloop-unsafe-{os.getpid()}-{started(os.getpid())}-x"
    for name in (f"keyeloop-runsc-{gone.pid}-123-x", f"keyeloop-runsc-{os.getpid()}-1-x", ours, "keyeloop-a-b-c-d"):
        (tmp_path / name).mkdir()
    made = make_folder("runsc")
    assert {path.name for path in tmp_path.iterdir()} == {made.name, ours, "keyeloop-a-b-c-d"}


def test_it_is_told_why_it_cannot_be_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = Runsc.available()
    assert not found.ok and found.reason == "no runsc was found" and "install gVisor" in found.remedy
    with pytest.raises(SandboxUnavailable, match="no runsc"):
        open_sandbox(engine="runsc")


def processes_about(folder: Path) -> list[str]:
    """Command lines that name a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in text:
            found.append(text)
    return found
