"""The engine without walls: works like the others, admits what it is, and is never taken unasked."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from keyeloop.sandbox import Mount, SandboxSpec, open_sandbox
from keyeloop.sandbox.opening import BY_NAME_ONLY, ENGINES
from keyeloop.sandbox.unsafe_local import LocalWorker, UnsafeLocal
from tests.sandbox.engines import QUICK
from tests.sandbox.host_view import wait_for


def test_it_runs_code_and_says_that_nothing_isolates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "canary")
    (tmp_path / "clip.txt").write_text("frames")
    mount = Mount(tmp_path.resolve() / "clip.txt", PurePosixPath("clip.txt"))
    with open_sandbox(SandboxSpec(limits=QUICK, mounts=(mount,), env={"GIVEN": "yes"}), "unsafe-local") as sandbox:
        about = sandbox.isolation
        assert (about.boundary, about.seccomp, about.network, about.memory) == ("none", False, True, "none")
        assert sandbox.exec("x = 417").status == "ok" and sandbox.exec("print(x + 88)").stdout == "505\n"
        sandbox.put("sent.txt", b"sent")
        told = sandbox.exec(
            "import os\nprint(open('sent.txt').read(), open('../in/clip.txt').read(), os.environ['GIVEN'])"
        )
        assert told.stdout == "sent frames yes\n"
        (artifact,) = sandbox.exec("open('../out/made.txt', 'w').write('made')").artifacts
        assert (str(artifact.path), sandbox.get("/out/made.txt")) == ("made.txt", b"made")
        assert "canary" not in sandbox.exec("print(os.environ)").stdout
        slow = sandbox.exec("while True: pass", timeout_s=0.3)
        assert (slow.status, slow.state_lost) == ("timeout", False)
        ended = sandbox.exec("print('last words')\nos._exit(1)")
        assert (ended.status, ended.stdout, ended.state_lost) == ("crashed", "last words\n", True)


def test_nothing_of_it_stays() -> None:
    sandbox = UnsafeLocal(SandboxSpec(limits=QUICK))
    pid = int(sandbox.exec("import os\nprint(os.getpid())").stdout)
    running = sandbox._running
    assert isinstance(running, LocalWorker) and running.folder.is_dir()
    stubborn = "import os, signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nos.fork()\nwhile True: pass"
    assert sandbox.exec(stubborn, timeout_s=0.3).state_lost
    assert wait_for(lambda: not Path(f"/proc/{pid}").exists(), 2) and not running.folder.exists()
    sandbox.close()
    sandbox.close()


def test_it_must_be_typed_in_full() -> None:
    assert UnsafeLocal in BY_NAME_ONLY and UnsafeLocal not in ENGINES
