"""Running code in a sandbox: state, output, values, errors, files."""

from __future__ import annotations

import asyncio
import struct
import threading
import time
import zlib
from pathlib import Path, PurePosixPath

import pytest

from keyeloop.runtime.errors import ConfigError, InputError, SandboxError
from keyeloop.sandbox import Limits, Mount, SandboxSpec, exec_async, open_sandbox, open_sandbox_async
from keyeloop.sandbox.session import WorkerSandbox
from keyeloop.sandbox.spec import WORK
from tests.sandbox.engines import QUICK, Engine

pytestmark = [pytest.mark.sandbox, pytest.mark.usefixtures("shared")]


def value(sandbox: WorkerSandbox, code: str) -> str:
    """What the last expression of ``code`` shows as text."""
    (display,) = sandbox.exec(code).displays
    return str(display.data["text/plain"])


def test_state_lives_from_call_to_call(shared: WorkerSandbox) -> None:
    first = shared.exec("import math\ntotal = 417\nprint('so far', total)")
    second = shared.exec("total += 88\ntotal")
    assert (first.status, first.stdout, first.displays, first.state_lost) == ("ok", "so far 417\n", (), False)
    assert second.displays[0].data == {"text/plain": "505"} and second.index == first.index + 1
    assert value(shared, "_ * 2") == "1010" and value(shared, "math.floor(2.5)") == "2"


def test_equal_code_shows_equal_sets_in_every_sandbox(engine: Engine, shared: WorkerSandbox) -> None:
    code = "import subprocess, sys\nprint([*{'ash', 'elm', 'fir', 'oak', 'yew'}], hash('x'))"
    code += (
        "\nprint(subprocess.run([sys.executable, '-c', 'print(hash(1.5), hash(\"x\"))'], capture_output=True).stdout)"
    )
    with engine.open() as other:
        assert shared.exec(code).stdout == other.exec(code).stdout != ""


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("x = 1", None),
        ("None", None),
        ("x = 2\nx", "2"),
        ("for i in range(2):\n    i", None),
        ("'text'", "'text'"),
        (
            "class Bad:\n    def __repr__(self): raise ValueError('no')\nBad()",
            "<Bad, whose repr failed: ValueError('no')>",
        ),
    ],
)
def test_only_a_last_expression_is_shown(shared: WorkerSandbox, code: str, expected: str | None) -> None:
    result = shared.exec(code)
    assert [display.data["text/plain"] for display in result.displays] == ([] if expected is None else [expected])


def test_output_of_every_kind_of_writer_is_caught(shared: WorkerSandbox) -> None:
    result = shared.exec(
        "import os, subprocess, sys\n"
        "print('python')\nos.write(1, b'descriptor\\n')\nsubprocess.run(['echo', 'child'])\n"
        "print('warned', file=sys.stderr)\nsys.stdout.write('\\udc80 \\u00e9\\n')"
    )
    assert result.stdout == "python\ndescriptor\nchild\n\\udc80 é\n" and result.stderr == "warned\n"
    assert shared.exec("1").stdout == ""
    taken = shared.exec("sys.stdout = None; os.close(1); os.close(0)")
    assert taken.status == "ok" and shared.exec("print('back')").stdout == "back\n"


@pytest.mark.parametrize(
    ("code", "name", "message", "line"),
    [
        ("a = 1\nb = a / 0\n", "ZeroDivisionError", "division by zero", 2),
        ("def f():\n    return g()\n\nf()", "NameError", "name 'g' is not defined", 2),
        ("x = (\n", "SyntaxError", "'(' was never closed", 1),
        ("import sys\nsys.exit('gone')", "SystemExit", "gone", 2),
        ("import json\njson.loads('{')", "JSONDecodeError", "Expecting property name", 2),
        ("raise type('E', (Exception,), {'__str__': lambda s: 1/0})", "E", "could not be described", 1),
    ],
)
def test_errors_name_the_line_and_keep_the_state(
    shared: WorkerSandbox, code: str, name: str, message: str, line: int
) -> None:
    shared.exec("kept = 7")
    result = shared.exec(code)
    assert result.status == "error" and result.error is not None and not result.state_lost
    assert (result.error.name, result.error.line) == (name, line) and message in result.error.message
    assert "inside.worker" not in result.error.traceback
    assert value(shared, "kept") == "7"


def test_leaving_with_success_is_no_error(shared: WorkerSandbox) -> None:
    assert [shared.exec(code).status for code in ("exit()", "raise SystemExit", "import sys; sys.exit(0)")] == [
        "ok"
    ] * 3
    assert shared.exec("print(1)").stdout == "1\n"


def test_a_fork_that_falls_out_of_the_code_does_not_answer_twice(shared: WorkerSandbox) -> None:
    result = shared.exec("import os\nchild = os.fork()\nif child: os.waitpid(child, 0)")
    assert result.status == "ok" and value(shared, "child > 0") == "True"


def test_background_threads_and_children_do_not_disturb_later_calls(shared: WorkerSandbox) -> None:
    shared.exec(
        "import subprocess, threading\n"
        "threading.Thread(target=lambda: [None for _ in range(100000)]).start()\n"
        "quiet = subprocess.Popen(['sleep', '60'])"
    )
    assert value(shared, "quiet.poll() is None") == "True"
    shared.exec("quiet.kill(); quiet.wait()")


def test_rich_values_show_their_pictures(shared: WorkerSandbox) -> None:
    result = shared.exec(
        "class Rich:\n"
        "    def _repr_html_(self): return '<b>x</b>'\n"
        "    def _repr_png_(self): return b'\\x89PNG-bytes'\n"
        "    def _repr_mimebundle_(self, include=None, exclude=None): return {'text/latex': '$x$', 'x/odd': 'y'}\n"
        "    def __repr__(self): return 'rich'\n"
        "display(Rich())\nRich()"
    )
    assert len(result.displays) == 2
    for display in result.displays:
        assert display.data == {
            "text/plain": "rich", "text/html": "<b>x</b>", "image/png": b"\x89PNG-bytes", "text/latex": "$x$"
        }  # fmt: skip


def test_pil_images_and_arrays_become_png(shared: WorkerSandbox) -> None:
    pytest.importorskip("PIL")
    drawn = shared.exec("from PIL import Image\nImage.new('RGB', (40, 30), (255, 0, 0))").displays[0].data["image/png"]
    assert isinstance(drawn, bytes) and struct.unpack_from(">II", drawn, 16) == (40, 30)
    array = shared.exec("import numpy as np\na = np.zeros((20, 30, 3), np.uint8); a[..., 1] = 9\na").displays[0].data
    png = array["image/png"]
    assert isinstance(png, bytes) and struct.unpack_from(">IIBB", png, 16) == (30, 20, 8, 2)
    start = png.index(b"IDAT") + 4
    rows = zlib.decompress(png[start : png.index(b"IEND") - 8])
    assert rows == (b"\0" + b"\0\x09\0" * 30) * 20
    assert str(array["text/plain"]).startswith("array(")
    plain = shared.exec("np.zeros((20, 30))").displays[0].data
    assert "image/png" not in plain


def test_open_figures_are_shown_once_and_closed(shared: WorkerSandbox) -> None:
    """A stand-in with matplotlib's own names and calls, so that the worker's side of it runs without the library."""
    result = shared.exec(
        "import sys, types\n"
        "class Figure:\n"
        "    def __init__(self, tag): self.tag = tag\n"
        "    def savefig(self, target, format, dpi, bbox_inches): target.write(b'PNG ' + self.tag)\n"
        "    def __repr__(self): return '<Figure>'\n"
        "Figure.__module__ = 'matplotlib.figure'\n"
        "figures = {1: Figure(b'one'), 2: Figure(b'two')}\n"
        "pyplot = types.SimpleNamespace(get_fignums=lambda: list(figures), figure=figures.get,\n"
        "                               close=lambda which: figures.clear())\n"
        "sys.modules['matplotlib.pyplot'] = pyplot\n"
        "figures[1]"
    )
    assert [display.data["image/png"] for display in result.displays] == [b"PNG one", b"PNG two"]
    assert value(shared, "len(figures)") == "0"
    shared.exec("del sys.modules['matplotlib.pyplot']")


def test_files_go_in_and_out_through_the_pipe(shared: WorkerSandbox, tmp_path: Path) -> None:
    big = bytes(range(256)) * 12_000  # several pieces
    (tmp_path / "big.bin").write_bytes(big)
    shared.put("data/small.txt", b"hello")
    shared.put("big.bin", tmp_path / "big.bin")
    shared.put("empty", b"")
    assert value(shared, "open('data/small.txt').read()") == "'hello'"
    assert (
        shared.get("big.bin") == big and shared.get(f"{WORK}/data/small.txt") == b"hello" and shared.get("empty") == b""
    )
    with pytest.raises(InputError, match="more than 1000"):
        shared.get("big.bin", max_bytes=1000)
    with pytest.raises(InputError, match="No such file"):
        shared.get("absent")
    for path in ("../escape", "/etc/new", "", "a\0b", f"{WORK}/../etc/new"):
        with pytest.raises(InputError):
            shared.put(path, b"x")
    assert shared.exec("1").status == "ok"


def test_mounts_are_read_only_and_plain(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "clip.txt").write_text("frames")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/inner.txt").write_text("deep")
    (tmp_path / "link").symlink_to("clip.txt")
    for path in (tmp_path / "clip.txt", tmp_path / "folder/inner.txt"):
        path.chmod(0o644)
    (tmp_path / "folder").chmod(0o755)
    mounts = (
        Mount(tmp_path / "clip.txt", PurePosixPath("video-1/clip.txt")),
        Mount(tmp_path / "folder", PurePosixPath("/in/folder")),
    )
    with engine.open(mounts=mounts) as sandbox:
        read = "print(open('/in/video-1/clip.txt').read(), open('/in/folder/inner.txt').read())"
        assert sandbox.exec(read).stdout == "frames deep\n"
        for locked in ("/in/video-1/clip.txt", "/in/folder/new.txt", "/in/video-1/new.txt"):
            failed = sandbox.exec(f"open({locked!r}, 'a')").error
            assert failed is not None and failed.name in ("OSError", "PermissionError")
    assert (tmp_path / "clip.txt").read_text() == "frames"
    for source, target in (
        (tmp_path / "link", "x"), (tmp_path / "absent", "x"), (Path("clip.txt"), "x"), (Path("/"), "x"),
        (Path("/etc/hostname"), "x"), (tmp_path / "clip.txt", "../x"), (tmp_path / "clip.txt", f"{WORK}/x"),
        (tmp_path / "clip.txt", "/in"),
    ):  # fmt: skip
        with pytest.raises(InputError):
            Mount(source, PurePosixPath(target))


def test_specs_that_cannot_be_meant_are_refused() -> None:
    for name in ("LD_PRELOAD", "A B", "", "1A"):
        with pytest.raises(ConfigError):
            SandboxSpec(env={name: "x"})
    with pytest.raises(ConfigError, match="wall_s"):
        Limits(wall_s=0)
    with pytest.raises(ConfigError, match="the engines are auto, "):
        open_sandbox(engine="none")


def test_modules_are_imported_beforehand(engine: Engine) -> None:
    with engine.open(preimport=("wave", "no_such_module")) as sandbox:
        assert sandbox.exec("import sys; print('wave' in sys.modules)").stdout == "True\n"


async def test_cancelling_interrupts_the_code(engine: Engine) -> None:
    sandbox = await open_sandbox_async(SandboxSpec(limits=QUICK), engine.name)
    with sandbox:
        assert (await exec_async(sandbox, "print(1)")).stdout == "1\n"
        task = asyncio.create_task(exec_async(sandbox, "here = 1\nwhile True: pass"))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        after = await exec_async(sandbox, "here")
        assert after.displays[0].data["text/plain"] == "1" and not after.state_lost


def test_interrupt_reset_and_close(engine: Engine) -> None:
    with engine.open() as sandbox:
        sandbox.exec("x = 1")
        timer = threading.Timer(0.2, sandbox.interrupt)
        timer.start()
        started_s = time.monotonic()
        stopped = sandbox.exec("print('on')\nimport time\ntime.sleep(60)")
        timer.join()
        assert stopped.status == "error" and stopped.stdout == "on\n" and time.monotonic() - started_s < 5
        assert value(sandbox, "x") == "1"
        sandbox.reset()
        after = sandbox.exec("x")
        assert after.error is not None and after.error.name == "NameError" and not after.state_lost
        threading.Timer(0.2, sandbox.close).start()
        ended = sandbox.exec("import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass")
        assert ended.status == "crashed" and ended.wall_s < 5
        sandbox.close()
        with pytest.raises(SandboxError, match="closed"):
            sandbox.exec("1")


def test_it_outlives_the_thread_that_opened_it(engine: Engine) -> None:
    """The kernel's parent-death signal follows the thread that started a process."""
    opened: list[WorkerSandbox] = []

    def opening() -> None:
        opened.append(engine.open())
        opened[0].start()

    thread = threading.Thread(target=opening)
    thread.start()
    thread.join()
    time.sleep(0.2)
    with opened[0] as sandbox:
        assert not sandbox.exec("1").state_lost and sandbox.exec("2").status == "ok"
