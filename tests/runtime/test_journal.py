"""Journals: what is written reads back, and a kill loses at most the line in flight."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from keyeloop.runtime.clock import SystemClock
from keyeloop.runtime.content import Image, MediaRef, Message, Text, ToolCall, ToolSpec, Usage, Video
from keyeloop.runtime.errors import JournalError
from keyeloop.runtime.events import (
    ContextEdited,
    Event,
    Noticed,
    ReplyReceived,
    RequestSent,
    RunEnded,
    RunStart,
    ToolCalled,
    ToolReturned,
    event_from_line,
    event_to_line,
)
from keyeloop.runtime.evidence import Citation, Region, Source, View
from keyeloop.runtime.journal import Journal, read_journal, steady_lines
from keyeloop.runtime.wire import from_wire, parts_to_wire, to_wire

SHA = "ab" * 32


def view(handle: str = "f1", time_s: float | None = 83.0) -> View:
    return View(handle, "video-1", SHA, time_s, Region(0, 0, 1280, 720))


def picture(handle: str = "f1", time_s: float | None = 83.0) -> Image:
    return Image(MediaRef(SHA, "image/jpeg", 10, 252, 140), view(handle, time_s))


def reply() -> Message:
    call = ToolCall("c1", "clip_video", {"video": "video-1", "start_s": 83, "end_s": None, "x": [1.5, {"y": True}]})
    return Message("assistant", (Text("I look."),), "thinking\u2028", (call,), raw="<think>…")


def all_events() -> list[Event]:
    clip = parts_to_wire([Text("video-1: f1 at 83.0 s"), Video((picture("f1"), picture("f2", 84.0)))])
    return [
        RunStart(
            run_id="r",
            question="what?",
            model="scripted",
            tools=(ToolSpec("clip_video", "Look.", {"type": "object"}),),
            inputs=(Source("video-1", "video", SHA, "/v.mp4", 1280, 720, 60.0),),
            messages=(to_wire(Message("system", (Text("s"),))), to_wire(Message("user", (picture(),)))),
            config={"turns": 3},
        ),
        RequestSent(turn=1, messages=2, input_tokens=100, visual_tokens=45),
        ReplyReceived(turn=1, message=to_wire(reply()), usage=Usage(100, 0, 45, 9, 3), finish="tool_calls"),
        ToolCalled(turn=1, call=reply().tool_calls[0]),
        ToolReturned(turn=1, call_id="c1", name="clip_video", parts=clip, views=(view("f1"), view("f2", 84.0))),
        ContextEdited(turn=2, message=3, part=1, evicted=("f1",), stub="f1: no longer shown", freed_tokens=45),
        Noticed(turn=2, code="repeated_call", text="twice", message=to_wire(Message("user", (Text("stop"),)))),
        RunEnded(
            status="answered",
            answer="417 [f1]",
            citations=(Citation("video-1", SHA, 83.0, Region(1, 2, 3, 4), "f1", True, "[f1]"),),
        ),
    ]


def write_all(folder: Path) -> list[Event]:
    with Journal.create(folder, SystemClock()) as journal:
        return [journal.append(event) for event in all_events()]


def test_every_event_reads_back_equal(tmp_path: Path) -> None:
    written = write_all(tmp_path / "run")
    assert list(read_journal(tmp_path / "run")) == written
    assert [event.seq for event in written] == list(range(8))
    assert all(event.time_s > 1e9 for event in written)


@pytest.mark.parametrize("message", [reply(), Message("tool", (picture(), Video((picture(),))), tool_call_id="c1")])
def test_messages_survive_the_wire(message: Message) -> None:
    line = event_to_line(Noticed(turn=1, code="x", text="", message=to_wire(message)))
    back = event_from_line(line)
    assert isinstance(back, Noticed) and back.message is not None
    assert from_wire(back.message) == message


def test_two_equal_runs_differ_in_times_only(tmp_path: Path) -> None:
    write_all(tmp_path / "one")
    write_all(tmp_path / "two")
    assert steady_lines(tmp_path / "one") == steady_lines(tmp_path / "two")
    assert (tmp_path / "one/journal.jsonl").read_bytes() != (tmp_path / "two/journal.jsonl").read_bytes()


def test_half_a_surrogate_pair_does_not_stop_a_run() -> None:
    back = event_from_line(event_to_line(Noticed(turn=1, code="x", text="a\ud800b")))
    assert isinstance(back, Noticed) and back.text == "a?b"


def test_odd_details_are_written_as_text() -> None:
    event = ToolReturned(turn=1, call_id="c", name="n", parts=(), details={"path": Path("/x"), "odd": SystemClock})
    back = event_from_line(event_to_line(event))
    assert isinstance(back, ToolReturned) and back.details["path"] == "/x"


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_torn_tail_is_passed_over_and_mended(tmp_path: Path, cut: int) -> None:
    folder = tmp_path / "run"
    written = write_all(folder)
    path = folder / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    assert list(read_journal(folder)) == written[:-1]
    with Journal.reopen(folder, SystemClock()) as journal:
        again = journal.append(all_events()[-1])
    assert again.seq == 7
    assert list(read_journal(folder)) == [*written[:-1], again]


def test_a_whole_line_of_rubbish_at_the_end_counts_as_torn(tmp_path: Path) -> None:
    written = write_all(tmp_path)
    with (tmp_path / "journal.jsonl").open("ab") as file:
        file.write(b"\0\0\0\n")
    assert list(read_journal(tmp_path)) == written


def test_a_full_disk_is_told_and_leaves_no_half_line(tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    journal = Journal.create(tmp_path, SystemClock())
    written = [journal.append(event) for event in all_events()[:2]]
    room = (tmp_path / "journal.jsonl").stat().st_size + 100
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limit[1]))
        with pytest.raises(JournalError, match=r"journal\.jsonl could not be written: File too large"):
            journal.append(Noticed(turn=1, code="x", text="y" * 1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    written.append(journal.append(all_events()[-1]))
    journal.close()
    assert list(read_journal(tmp_path)) == written and [event.seq for event in written] == [0, 1, 2]


def test_damage_in_the_middle_is_told(tmp_path: Path) -> None:
    write_all(tmp_path)
    path = tmp_path / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"{}\n", *lines[2:]]))
    with pytest.raises(JournalError, match="line 3"):
        list(read_journal(tmp_path))


def test_a_folder_holds_one_run(tmp_path: Path) -> None:
    write_all(tmp_path)
    with pytest.raises(JournalError, match="already holds a run"):
        Journal.create(tmp_path, SystemClock())
    with pytest.raises(JournalError, match="no run in"):
        list(read_journal(tmp_path / "nowhere"))
    journal = Journal.reopen(tmp_path, SystemClock())
    journal.close()
    with pytest.raises(JournalError, match="closed"):
        journal.append(all_events()[1])


WRITER = """
import sys, itertools
from pathlib import Path
from keyeloop.runtime.clock import SystemClock
from keyeloop.runtime.events import Noticed
from keyeloop.runtime.journal import Journal
journal = Journal.create(Path(sys.argv[1]), SystemClock())
for number in itertools.count():
    journal.append(Noticed(turn=number, code="tick", text="x" * 5000))
    print(number, flush=True)
"""


def test_kill_9_loses_at_most_the_line_in_flight(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root / "src")},
    )
    assert writer.stdout is not None
    with writer.stdout as output:
        for _ in range(20):
            output.readline()
        writer.send_signal(signal.SIGKILL)
        told = 20 + len(output.readlines())
    writer.wait()
    turns = [event.turn for event in read_journal(tmp_path / "run") if isinstance(event, Noticed)]
    assert turns == list(range(len(turns)))
    assert told <= len(turns) <= told + 1
