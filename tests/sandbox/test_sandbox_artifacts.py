"""Files that code leaves in ``/out``: what is taken, what is refused, and under which names."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import PurePosixPath

import pytest

from keyeloop.runtime.errors import InputError
from keyeloop.sandbox import Limits
from keyeloop.sandbox.artifacts import mime_of
from keyeloop.sandbox.replies import safe_path
from keyeloop.sandbox.spec import WORK
from tests.sandbox.engines import QUICK, Engine

pytestmark = [pytest.mark.sandbox, pytest.mark.usefixtures("shared")]


def test_new_and_changed_files_are_reported_with_their_content(engine: Engine) -> None:
    png = b"\x89PNG\r\n\x1a\n" + b"\0" * 20
    with engine.open() as sandbox:
        first = sandbox.exec(
            f"import os\nos.makedirs('/out/a/b')\nopen('/out/a/b/plot.txt', 'wb').write({png!r})\n"
            "open('/out/note', 'w').write('hi')"
        )
        assert [(str(each.path), each.size, each.mime) for each in first.artifacts] == [
            ("note", 2, "text/plain"), ("a/b/plot.txt", len(png), "image/png")
        ]  # fmt: skip
        assert first.artifacts[1].sha256 == hashlib.sha256(png).hexdigest()
        assert sandbox.exec("1").artifacts == ()
        (changed,) = sandbox.exec("open('/out/note', 'w').write('hello')").artifacts
        assert changed.size == 5 and sandbox.get("/out/note") == b"hello"
        assert {str(each.path) for each in sandbox.artifacts()} == {"note", "a/b/plot.txt"}
        sandbox.exec("os._exit(1)")
        assert sandbox.get("/out/a/b/plot.txt") == png, "artifacts outlive the worker"
        with pytest.raises(InputError, match="more than 3"):
            sandbox.get("/out/note", max_bytes=3)


def test_only_plain_files_are_taken(engine: Engine) -> None:
    code = (
        "import os, socket\n"
        f"open('{WORK}/outside', 'w').write('secret')\n"
        "os.chdir('/out')\n"
        "os.symlink('/etc/passwd', 'link'); os.symlink('/work', 'folder')\n"
        "try: os.mkfifo('fifo')\n"
        "except PermissionError: print('no fifo')\n"
        "socket.socket(socket.AF_UNIX).bind('socket')\n"
        "open('one', 'w').write('x'); os.link('one', 'two')\n"
        "open('large', 'wb').truncate(2000)\n"
        "open('line\\nbreak', 'w').write('x'); open('<script>', 'w').write('x')\n"
        "open('good', 'w').write('fine')"
    )
    with engine.open(replace(QUICK, artifact_bytes=1000)) as sandbox:
        result = sandbox.exec(code)
        assert [str(each.path) for each in result.artifacts] == ["good"] and result.stdout == "no fifo\n"
        for name, why in {
            "link": "symbolic link", "socket": "not a regular file", "one": "hard link",
            "two": "hard link", "large": "too large", r"line\nbreak": "name", "<script>": "name",
        }.items():  # fmt: skip
            assert any(f"'{name}'" in line and why in line for line in result.stderr.splitlines()), name
        for path in ("/out/link", "/out/folder/outside", "/out/one", "/out/socket", "/out"):
            with pytest.raises(InputError):
                sandbox.get(path)
        assert sandbox.exec("print(1)").stdout == "1\n"


def test_files_that_vanish_while_they_are_listed_do_no_harm(engine: Engine) -> None:
    code = (
        "import os\n"
        "if os.fork() == 0:\n"
        "    while True:\n"
        "        for n in range(500): os.close(os.open(f'/out/t{n}', os.O_CREAT))\n"
        "        for n in range(500): os.remove(f'/out/t{n}')"
    )
    with engine.open() as sandbox:
        results = [sandbox.exec(code), *(sandbox.exec("1") for _ in range(20))]
    assert {result.status for result in results} == {"ok"} and not any(result.state_lost for result in results)


def test_number_and_sum_of_artifacts_are_bounded(engine: Engine) -> None:
    limits = replace(QUICK, artifact_count=3, artifact_bytes=1000, artifacts_total_bytes=16_384)
    with engine.open(limits) as sandbox:
        many = sandbox.exec("for n in range(10): open(f'/out/{n}', 'w').write('x')")
        assert len(many.artifacts) == 3 and many.stderr.count("left out") == 7
        assert len(sandbox.exec("for n in range(10): open(f'/out/{n}', 'w').write('yy')").artifacts) == 3
        assert len(sandbox.artifacts()) == 3
        flood = sandbox.exec("try:\n  for n in range(9999): open(f'/out/f{n}', 'w')\nexcept OSError: pass")
        assert flood.status == "ok" and len(sandbox.artifacts()) == 3


def test_a_lying_worker_cannot_send_more_than_was_allowed(engine: Engine) -> None:
    """The code takes over the answers about files: the host counts for itself."""
    take_over = (
        "import sys\nfiles = sys.modules['inside.files'].Files\n"
        "names = [['../../etc/passwd', 1], ['/abs', 1], ['grows', 10]]\n"
        "files.changed = lambda self: (names, [['x' * 500, 'y' * 500]])\n"
        "files.read = lambda self, path, offset, size: (b'z' * size, 1 << 40)\n"
    )
    with engine.open(replace(QUICK, artifact_bytes=5000)) as sandbox:
        result = sandbox.exec(take_over)
        assert result.status == "ok" and result.artifacts == () and len(result.stderr) < 1000
        assert "plain relative path" in result.stderr and "more than 5000" in result.stderr


@pytest.mark.parametrize("name", ["../x", "/x", "a//b", "a/./b", "", ".", "a/..", "a\nb", "a\x1bb", "a\\b", "\ud800"])
def test_names_that_could_surprise_are_refused(name: str) -> None:
    assert safe_path(name) is None


def test_plain_names_and_kinds() -> None:
    assert safe_path("a/b c-é.txt") == PurePosixPath("a/b c-é.txt") and safe_path("x" * 201) is None
    kinds = {b"\xff\xd8\xff\xe0": "image/jpeg", b"plain": "text/plain", b"a\0b": "application/octet-stream",
             b"\xff\xfe": "application/octet-stream", b"": "text/plain"}  # fmt: skip
    assert {data: mime_of(data) for data in kinds} == kinds
    assert Limits().artifact_bytes <= Limits().frame_bytes
