"""How the worker of a container is reached: by named pipes that are gone before code runs, else through the daemon."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from keyeloop.sandbox import SandboxSpec
from keyeloop.sandbox.docker.daemon import connect
from keyeloop.sandbox.docker.engine import _probe, _Probed, choose
from keyeloop.sandbox.docker.first import last_words
from keyeloop.sandbox.docker.pipes import REPLIES, REQUESTS, NamedPipes
from keyeloop.sandbox.docker.stream import AttachedPipe
from tests.sandbox.engines import docker
from tests.sandbox.hostile_worker import open_files


def test_named_pipes_are_private_and_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    held = open_files()
    pipes = NamedPipes()
    (folder,) = tmp_path.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and pipes.source.parent == folder
    with (
        open(pipes.source / REQUESTS, "rb", buffering=0, opener=_at_once) as requests,
        open(pipes.source / REPLIES, "wb", buffering=0, opener=_at_once) as replies,
    ):
        pipes.remove()
        pipes.remove()
        assert not list(tmp_path.iterdir())
        os.write(pipes.requests_fd, b"asked")
        assert requests.read(9) == b"asked"
        replies.write(b"told")
        assert os.read(pipes.replies_fd, 9) == b"told"
    assert os.read(pipes.replies_fd, 9) == b"", "the end of the other side is told"
    with pytest.raises(BrokenPipeError):
        os.write(pipes.requests_fd, b"asked")
    os.close(pipes.requests_fd)
    os.close(pipes.replies_fd)
    assert open_files() == held


def test_a_folder_that_holds_no_pipes_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("keyeloop.sandbox.docker.pipes.REPLIES", "no/such/folder")
    held = open_files()
    with pytest.raises(OSError):
        NamedPipes()
    assert not list(tmp_path.iterdir()) and open_files() == held


@pytest.mark.docker
def test_code_finds_an_empty_folder_and_its_own_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker()
    assert choose(SandboxSpec(), "runc").by_pipes == connect().local
    if not connect().local:
        pytest.skip("a daemon elsewhere is reached through its own connection")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    look = (
        "import os\nfolder = '/dev/keyeloop'\nprint(os.stat(folder).st_nlink)\n"
        "def attempt(act, *arguments):\n    try: print('done', act, act(*arguments))\n    except OSError: pass\n"
        "for act, name in ((os.mkdir, '/x'), (os.mkfifo, '/requests'), (os.chmod, ''), (os.listdir, '')):\n"
        "    attempt(act, folder + name, *((0o777,) if act is not os.listdir else ()))\n"
        "for file in (64, 65): attempt(os.fchmod, file, 0o777)"
    )
    with docker().open() as sandbox:
        sandbox.start()
        assert not list(tmp_path.iterdir())
        assert sandbox.exec(look).stdout == "0\n"


@pytest.mark.docker
def test_a_container_that_cannot_open_pipes_is_reached_through_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    docker()
    monkeypatch.setattr("keyeloop.sandbox.docker.pipes.PIPE_MODE", 0)  # as a security module would keep them from it
    found = choose(SandboxSpec(), "runc")
    assert _probe.__wrapped__(found.daemon, found.image, "runc") == ("", False)
    with _Probed(type(found)(found.daemon, found.image, "runc", by_pipes=False)) as sandbox:
        assert sandbox.exec("x = 417").status == "ok" and sandbox.exec("print(x + 88)").stdout == "505\n"
        assert sandbox._running is not None and isinstance(sandbox._running.pipe, AttachedPipe)
        ended = sandbox.exec("print('last words')\nimport os\nos._exit(3)")
        assert (ended.status, ended.stdout, ended.state_lost) == ("crashed", "last words\n", True)
        assert sandbox.exec("print('y' * 100_000)").truncated


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ('warning: [x]\n["out [1]", "err\\n"]\n', ("out [1]", "err\n")),
        ('\n["' + "x" * 50 + '", ""]', ("x" * 20, "")),
        ("python3: not found", ("", "python3: not found")),
        ('["one"]\n[1, 2, 3]\n{}\n17\n', ("", '["one"]\n[1, 2, 3]\n{}\n17\n'[-20:])),
        ("", ("", "")),
    ],
)
def test_last_words_are_found_among_others(said: str, words: tuple[str, str]) -> None:
    assert last_words(said, 20) == words


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
