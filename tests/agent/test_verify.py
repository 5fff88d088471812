"""``keyeloop verify`` against servers on which keye-tiny really answers, whole and broken one way each."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keyeloop.agent.cli import main
from keyeloop.agent.verification.board import ASKED_S, SHOWN_S, ProbeVideo
from keyeloop.agent.verification.boxes import READINGS, Drawn, best_reading
from keyeloop.agent.verification.looking import ASPECTS
from keyeloop.agent.verification.telling import tell, told_second
from keyeloop.agent.verification.verify import Report, verify
from keyeloop.model_backend.local.engine import LocalBackend
from keyeloop.model_backend.local.folder import model_folder
from keyeloop.model_backend.scripted import ScriptedBackend
from keyeloop.runtime.content import Message, Text, ToolCall
from keyeloop.runtime.errors import InputError
from keyeloop.runtime.evidence import Region
from tests.agent.engine_server import served, swapped

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def engine() -> LocalBackend:
    return LocalBackend.load("keye-tiny", device="cpu")


def keys(report: Report, state: str) -> set[str]:
    return {finding.key for finding in report.findings if finding.state == state}


async def checked(engine: LocalBackend, scratch: Path, *folder: str, **breaking: Any) -> Report:
    with served(engine, scratch, **breaking) as server:
        return await verify([*folder, server.address], runs=scratch / "runs")


async def test_keye_tiny_and_its_server_confirm_everything(engine: LocalBackend, tmp_path: Path) -> None:
    report = await checked(engine, tmp_path, "keye-tiny", own=True)
    assert [finding for finding in report.findings if finding.state != "confirmed"] == []
    assert report.model == "keye-tiny" and not report.differs
    assert len(list((tmp_path / "runs").glob("[!.]*"))) == len(ASKED_S)


async def test_calls_and_thinking_left_in_the_text_are_read_as_well(engine: LocalBackend, tmp_path: Path) -> None:
    report = await checked(engine, tmp_path, parses=False)
    assert keys(report, "different") == set() and keys(report, "unknown") == {"video-live"}
    assert {"calls-live", "thinking-live", "template-live"} <= keys(report, "confirmed")


async def test_swapped_boxes_are_named(engine: LocalBackend, tmp_path: Path) -> None:
    report = await checked(engine, tmp_path, "keye-tiny", say=swapped, own=True)
    assert keys(report, "different") == {"boxes-live"}
    (boxes,) = (finding for finding in report.findings if finding.key == "boxes-live")
    assert "y0,x0,y1,x1 in thousandths" in boxes.found and boxes.change == "runtime/evidence.py"


async def test_dense_attention_is_named(tmp_path: Path) -> None:
    dense = LocalBackend.load("keye-tiny", device="cpu", mode="dense")
    report = await checked(dense, tmp_path, "keye-tiny", own=True)
    assert keys(report, "different") == {"sparse-live"}
    (sparse,) = (finding for finding in report.findings if finding.key == "sparse-live")
    assert sparse.found == "attention is dense" and sparse.change == "model_backend/sglang/plugin/backend.py"


async def test_a_template_without_tools_is_named_and_nothing_is_asked_through_it(
    engine: LocalBackend, tmp_path: Path
) -> None:
    report = await checked(engine, tmp_path, keeps_tools=False)
    assert keys(report, "different") == {"tools-live"}
    assert {"template-live", "calls-live", "seen-live", "boxes-live"} <= keys(report, "unknown")


async def test_a_server_without_a_status_leaves_the_sparse_path_open(engine: LocalBackend, tmp_path: Path) -> None:
    report = await checked(engine, tmp_path, status=None)
    assert keys(report, "different") == set() and "sparse-live" in keys(report, "unknown")


async def test_another_theta_is_named_in_the_files_and_on_the_server(tmp_path: Path) -> None:
    folder = tmp_path / "keye-tiny-copy"
    folder.mkdir()
    for path in model_folder("keye-tiny").iterdir():
        if path.suffix == ".safetensors":
            (folder / path.name).symlink_to(path)
        elif path.suffix in (".json", ".jinja"):
            shutil.copy(path, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rope_theta": 1e6}))
    report = await checked(LocalBackend.load(folder, device="cpu"), tmp_path, str(folder))
    assert keys(report, "different") == {"rope-theta", "rope-live"}


def a_second_late(call: ToolCall) -> ToolCall:
    times = {name: value + 1 for name, value in call.arguments.items() if name in ("start_s", "end_s")}
    return replace(call, arguments={**call.arguments, **times})


def lost_pictures(message: Message) -> Message:
    return replace(message, parts=tuple(part for part in message.parts if isinstance(part, Text)))


async def test_looking_a_second_late_is_named(engine: LocalBackend, tmp_path: Path) -> None:
    report = await checked(engine, tmp_path, call=a_second_late)
    assert keys(report, "different") == {"time-live"}
    (time,) = (finding for finding in report.findings if finding.key == "time-live")
    assert time.found == "at most 1.0 s off; 3 of 3 answers read the number of another moment"


async def test_pictures_that_a_tool_turn_loses_are_named(engine: LocalBackend, tmp_path: Path) -> None:
    report = await checked(engine, tmp_path, result=lost_pictures)
    assert "tool-picture-live" in keys(report, "different") <= {"tool-picture-live", "seen-live"}


async def test_an_answer_inside_unclosed_thinking_is_named(engine: LocalBackend, tmp_path: Path) -> None:
    report = await checked(engine, tmp_path, closes=False)
    assert keys(report, "different") == {"thinking-live"}


def test_every_file_to_change_is_there() -> None:
    changes = {change for _, change in ASPECTS.values()}
    assert all((ROOT / change).is_file() for change in changes)


@pytest.mark.parametrize(
    ("text", "second"),
    [
        ("9.6", 9.6),
        ("At 9.6 s [f1 1,2,3,4].", 9.6),
        ("0:09.6", 9.6),
        ("467 first appears at 1:02 s", 62.0),
        ("no", None),
    ],
)
def test_the_last_moment_of_an_answer_counts(text: str, second: float | None) -> None:
    assert told_second(text) == second


async def test_a_model_that_is_shown_a_video_whole_is_asked_when(tmp_path: Path) -> None:
    video = ProbeVideo()
    video.write(tmp_path / "board.mp4")
    right = [f"It is {at - SHOWN_S:.1f} s" for at in ASKED_S]
    for said, state in (([*right[:2], "1 s"], "confirmed"), (["5 s", "1 s", right[2]], "different")):
        backend = ScriptedBackend(said)
        finding = await tell(backend, video, tmp_path, tmp_path / "runs")
        assert finding.state == state, finding


def test_boxes_are_told_apart_by_what_they_fit() -> None:
    whole, truth = Region(0, 0, 1280, 720), Region(128, 360, 640, 540)
    written = {
        "x0,y0,x1,y1 in thousandths": (100, 500, 500, 750),
        "y0,x0,y1,x1 in thousandths": (500, 100, 750, 500),
        "x0,y0,width,height in thousandths": (100, 500, 400, 250),
        "x0,y0,x1,y1 in pixels of the source": (128, 360, 640, 540),
        "x0,y0,x1,y1 in parts of 1": (0.1, 0.5, 0.5, 0.75),
    }
    assert set(written) == set(READINGS)
    for name, box in written.items():
        reading, overlap = best_reading([Drawn(box, whole, truth)])
        assert reading == name and overlap == pytest.approx(1.0)
    assert best_reading([Drawn((0, 0, 50, 50), whole, truth)])[0] is None
    assert best_reading([])[0] is None


def test_the_video_shows_each_moment_just_long_enough() -> None:
    video = ProbeVideo()
    numbers = [shot.board for shot in video.video.shots]
    assert len(set(numbers)) == len(numbers) and all(len(number) == 3 for number in numbers)
    for asked in video.asked:
        for off_s in (-0.5, 0.5):
            assert video.video.shot_at(asked.time_s + off_s).board != asked.answer
        shown = video.video.shot_at(asked.time_s)
        assert asked.answer == shown.board and shown.start_s == pytest.approx(asked.time_s - SHOWN_S)


def test_the_command_prints_a_table_or_json_and_its_status_tells(
    engine: LocalBackend, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(engine, tmp_path, say=swapped) as server:
        assert status("verify", "keye-tiny", server.address) == 1
        table = capsys.readouterr()
        assert "different" in table.out and "change runtime/evidence.py" in table.out
        assert "1 different, 0 unknown" not in table.out and "1 different, 1 unknown" in table.out
        assert "rendered video" in table.err
    assert status("verify", "keye-tiny", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["model"] == "keye-tiny" and told["server"] is None
    assert told["counts"] == {"confirmed": len(told["findings"]), "different": 0, "unknown": 0}


@pytest.mark.parametrize("targets", [[], ["a", "b"], ["http://127.0.0.1:1", "http://127.0.0.1:2"], ["nowhere"]])
async def test_targets_that_cannot_be_are_input_errors(targets: list[str]) -> None:
    with pytest.raises(InputError):
        await verify(targets)


def test_a_server_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr("keyeloop.model_backend.served.sending.FIRST_PAUSE_S", 0.01)
    assert status("verify", "http://127.0.0.1:9/v1#keye-tiny") == 1
    assert "cannot be reached" in capsys.readouterr().err


def status(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert isinstance(ended.value.code, int)
    return ended.value.code
