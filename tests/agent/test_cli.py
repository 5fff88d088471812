"""The command line: one JSON object, readable runs, and every wrong input told in one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from keyeloop.agent.agent import Agent
from keyeloop.agent.builtin import builtin_tools
from keyeloop.agent.cli import main
from keyeloop.agent.user_tools import load_tool
from keyeloop.model_backend.scripted import Script, ScriptedBackend, call
from keyeloop.runtime.trajectory import Trajectory
from tests.agent.test_record import heed_ctrl_c
from tests.tools.moving_pictures import write_video

ROOT = Path(__file__).resolve().parents[2]
SECOND = [number * 40 for number in range(25)]
TOOLS_PY = '''
"""A user's own tools."""
from keyeloop import ToolError, tool

def file_number(number: int) -> str:
    """File a number.

    Args:
        number: what was read
    """
    if number < 0:
        raise ToolError("give a number from 0")
    return f"filed {number} \\x1b[31m"

def untyped(number):
    """File a number."""
    return number
'''
SLOW_PY = '''
import os
import time

def nap() -> str:
    """Sleep."""
    time.sleep(float(os.environ.get("NAP", 0)))
    return "slept"
'''


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of its own, with a video and tools.py."""
    monkeypatch.chdir(tmp_path)
    for name in ("KEYELOOP_MODEL", "KEYELOOP_RUNS"):
        monkeypatch.delenv(name, raising=False)
    write_video(tmp_path / "board.mp4", SECOND)
    (tmp_path / "tools.py").write_text(TOOLS_PY)
    return tmp_path


@pytest.fixture
def recorded(place: Path) -> Path:
    """A run to replay: it looks, files what it read, and cites."""
    script: list[Script] = [
        call("clip_video", video="video-1", start_s=0.4, end_s=0.8, max_frames=2),
        call("file_number", number=10),
        "10 [f1 0,0,500,500], not [video-1 0:59:00]",
    ]
    tools = [*builtin_tools({"video"}), load_tool("tools.py:file_number")]
    agent = Agent(ScriptedBackend(script), tools, runs="recorded")
    return agent.run_sync("file the number", video="board.mp4").run


@pytest.fixture
def replayable(place: Path) -> Path:
    """The smallest run to name as a model."""
    return Agent(ScriptedBackend(["x"]), [], runs="recorded").run_sync("?").run


def keyeloop(*arguments: str | Path) -> int:
    """Run the command line here; its exit code."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


def test_run_ends_with_one_json_object(recorded: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = keyeloop(
        "run", "file the number", "--video", "board.mp4", "--tool", "tools.py:file_number",
        "--model", f"replay:{recorded}", "--json",
    )  # fmt: skip
    shown = capsys.readouterr()
    told = json.loads(shown.out)
    assert code == 0 and shown.out.count("\n") == 1
    assert (told["answer"], told["status"]) == ("10, not", "answered")
    first, second = told["citations"]
    assert (first["time_s"], first["handle"], first["seen"]) == (0.4, "f1", True)
    assert first["region"] == {"x0": 0.0, "y0": 0.0, "x1": 80.0, "y1": 48.0}
    assert (second["time_s"], second["seen"]) == (3540.0, False)
    assert told["usage"]["input_tokens"] > 100
    assert Trajectory.read(place / told["run"]).answer == told["text"]
    assert Path(told["run"]).parent == Path("runs")


def test_run_prints_plain_lines_where_there_is_no_terminal(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keyeloop(
        "run", "file the number", "--video", "board.mp4", "--tool", "tools.py:file_number",
        "--model", f"replay:{recorded}", "--runs", "elsewhere",
    )  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert '   → clip_video(video="video-1", start_s=0.4, end_s=0.8, max_frames=2)' in lines
    assert any(line.startswith("   ← video-1: f1 at 0.4 s, f2 at 0.8 s + 2 pictures") for line in lines)
    assert any(line.startswith("   ← filed 10 \\x1b[31m") for line in lines), "control characters are shown, not sent"
    assert "  [f1 0,0,500,500] video-1 at 0:00:00.400, box 0,0 to 80,48 px" in lines
    assert "  [video-1 0:59:00] video-1 at 0:59:00.000 (unseen: the run never looked there)" in lines
    assert lines[-1].startswith("kept in elsewhere/")


def test_show_tells_a_whole_run(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert keyeloop("show", recorded) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "file the number" and lines[1].startswith("scripted, ")
    assert any(line.startswith(" 1 ") and "tokens in" in line for line in lines)
    strip = next(line for line in lines if "█" in line)
    assert strip.startswith("  video-1 ─") and 15 <= strip.count("█") <= 32
    assert "    0:00:00.400 to 0:00:00.800 (2 views)" in lines
    assert lines[-1].startswith("answered: 3 steps, ")
    assert keyeloop("show", recorded / "journal.jsonl") == 0


def audio_only(path: Path) -> None:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4608), np.float32), "fltp", "mono")
        frame.sample_rate = 44100
        file.mux([*stream.encode(frame), *stream.encode()])


def zero_frames(path: Path) -> None:
    with av.open(str(path), "w", container_options={"movflags": "empty_moov+frag_keyframe"}) as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        file.start_encoding()


def cut_before_index(path: Path) -> None:
    data = write_video(path, SECOND).read_bytes()
    path.write_bytes(data[: data.index(b"moov") // 2])


BAD_VIDEOS: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (lambda path: None, "no such file"),
    "folder": (lambda path: path.mkdir(), "is a folder"),
    "text": (lambda path: path.write_text("a film about nothing\n" * 9), "is a text file"),
    "playlist": (lambda path: path.write_text("#EXTM3U\n/etc/passwd\n"), "is an HLS playlist"),
    "cut": (cut_before_index, "ends before its index"),
    "audio": (audio_only, "holds only audio"),
    "empty": (zero_frames, "holds no frame"),
}


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What the command line says of wrong input: one line on stderr, exit code 2, and no run."""
    assert keyeloop(*arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and not Path("runs").exists()
    assert shown.err.startswith("error: ") and shown.err.count("\n") == 1 and "Traceback" not in shown.err
    return shown.err


@pytest.mark.parametrize("name", BAD_VIDEOS)
def test_a_bad_video_is_one_line(name: str, replayable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, expected = BAD_VIDEOS[name]
    path = Path(f"{name}.mp4")
    make(path)
    said = refused(capsys, "run", "what?", "--video", path, "--model", f"replay:{replayable}")
    assert expected in said and str(path) in said


def test_other_wrong_inputs_are_one_line(replayable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bare").mkdir()
    for name in ("config.json", "tokenizer.json"):
        (Path("bare") / name).write_text("{}")
    Path("torn").mkdir()
    (Path("torn") / "journal.jsonl").write_text('{"seq": 0, "ki')
    Path("broken.py").write_text("import nothing_of_that_name")
    replay = ("--model", f"replay:{replayable}")
    cases: dict[tuple[str | Path, ...], str] = {
        ("run", "  ", *replay): "the question is empty: say what you want to know",
        ("run", "what?", "--image", "board.mp4", *replay): "board.mp4 is a video, not an image: pass it as --video",
        ("run", "what?", "--video", "https://a.test/b.mp4", *replay): "is an address, not a file; download it first",
        ("run", "what?", "--documents", "nowhere", *replay): "the documents folder nowhere does not exist",
        ("run", "what?", "--documents", "bare", *replay): "the documents folder bare holds no .txt or .md file",
        ("run", "what?", "--tool", "tools.py:untyped", *replay): "number",
        ("run", "what?", "--tool", "tools.py:nothing", *replay): "tools.py has no 'nothing'; it defines file_number,",
        ("run", "what?", "--tool", "tools.py", *replay): "is not FILE.py:function",
        ("run", "what?", "--tool", "none.py:f", *replay): "no such file: none.py",
        ("run", "what?", "--tool", "broken.py:f", *replay): "broken.py cannot be imported: ModuleNotFoundError",
        ("run", "what?", "--model", "bare"): "model folder bare has no weights",
        ("run", "what?", "--model", "no-such-model"): "no model",
        ("run", "what?", "--model", "replay:bare"): "no run in bare",
        ("run", "what?", "--model", "replay:torn"): "name another run to replay",
        ("run", "what?", "--max-turns", "0", *replay): "turns",
        ("run", "what?", "--frames", "3"): "No such option",
        ("run",): "question",
        ("show", "bare"): "no run in bare",
        ("demo-video", "out.avi"): "name an .mp4 file",
    }
    for arguments, expected in cases.items():
        assert expected in refused(capsys, *arguments), arguments


def test_a_place_where_nothing_can_be_recorded_is_named(replayable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert keyeloop("run", "?", "--model", f"replay:{replayable}", "--runs", "tools.py") == 1
    said = capsys.readouterr().err
    assert said.startswith("error: a run cannot be recorded in tools.py/") and said.count("\n") == 1
    assert said.endswith("(Not a directory): name another folder for runs\n")


def test_a_failed_run_exits_with_1_and_its_reason(replayable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert keyeloop("run", "another question", "--video", "board.mp4", "--model", f"replay:{replayable}") == 1
    assert "error: request 1 is not the recorded one" in capsys.readouterr().err
    (run,) = Path("runs").glob("[!.]*")
    assert Trajectory.read(run).status == "failed"


def test_ctrl_c_records_and_says_how_to_go_on(place: Path) -> None:
    Path("slow.py").write_text(SLOW_PY)
    tools = [*builtin_tools(()), load_tool("slow.py:nap")]
    recorded = Agent(ScriptedBackend([call("nap"), "x"]), tools, runs="recorded").run_sync("?").run
    command = [sys.executable, "-c", "from keyeloop.agent.cli import main; main()"]
    process = subprocess.Popen(
        [*command, "run", "?", "--tool", "slow.py:nap", "--model", f"replay:{recorded}"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "NAP": "600", "PYTHONUNBUFFERED": "1"},
        preexec_fn=heed_ctrl_c,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while "nap()" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    (run,) = Path("runs").glob("[!.]*")
    assert process.returncode == 130 and Trajectory.read(run).status == "interrupted"
    ways = f"go on with  keyeloop run --resume {run}  or read it with  keyeloop show {run}"
    assert err == f"interrupted; everything up to here is kept: {ways}\n"


def test_settings_come_from_the_environment_too(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYELOOP_MODEL", f"replay:{recorded}")
    monkeypatch.setenv("KEYELOOP_RUNS", "kept")
    assert keyeloop("run", "file the number", "--video", "board.mp4", "--tool", "tools.py:file_number") == 0
    assert len(list(Path("kept").glob("[!.]*"))) == 1


def test_an_error_cannot_steer_the_terminal(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert keyeloop("run", "what?", "--video", "a\x1b[31mred\nb.mp4") == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and "\x1b" not in told and told.count("\n") == 1


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom keyeloop.agent.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as left:\n    assert left.code == 0\n"
        "print([name for name in ('torch', 'av', 'cv2', 'numpy', 'pydantic', 'docker') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    for command in ("run", "show", "doctor", "demo-video", "model"):
        assert command in done.stdout
