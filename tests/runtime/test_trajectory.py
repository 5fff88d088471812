"""Reading a run back: steps, status, views, spans, and the context it ended with."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyeloop.runtime.clock import SystemClock
from keyeloop.runtime.content import Image, MediaRef, Message, Text, ToolCall, Usage, Video
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
)
from keyeloop.runtime.evidence import Citation, Region, View
from keyeloop.runtime.journal import Journal
from keyeloop.runtime.trajectory import Span, Trajectory
from keyeloop.runtime.wire import parts_to_wire, to_wire

SHA = "ab" * 32
FULL = Region(0, 0, 1280, 720)
OPENING = (Message("system", (Text("look"),)), Message("user", (Text("what?"),)))


def image(handle: str, time_s: float | None, source: str = "video-1") -> Image:
    return Image(MediaRef(SHA, "image/jpeg", 9, 28, 28), View(handle, source, SHA, time_s, FULL))


def calling(*ids: str) -> Message:
    return Message("assistant", (), tool_calls=tuple(ToolCall(name, "clip_video", {}) for name in ids), raw="x")


CLIP = (Text("video-1: f1, f2"), Video((image("f1", 80.0), image("f2", 84.0))))
STILL = (Text("z1"), image("z1", 82.0), image("f3", None, "image-1"))
LATER = (image("f4", 10.0),)


CITED = Citation("video-1", SHA, 80.0, None, "f1", True, "[f1]")


def run_events() -> list[Event]:
    return [
        RunStart(run_id="r", question="what?", model="scripted", messages=tuple(map(to_wire, OPENING))),
        RequestSent(turn=1, messages=2, input_tokens=50),
        ReplyReceived(turn=1, message=to_wire(calling("c1", "c2")), usage=Usage(50, 0, 0, 9), finish="tool_calls"),
        ToolCalled(turn=1, call=ToolCall("c1", "clip_video", {})),
        ToolCalled(turn=1, call=ToolCall("c2", "zoom", {})),
        ToolReturned(turn=1, call_id="c1", name="clip_video", parts=parts_to_wire(CLIP)),
        ToolReturned(turn=1, call_id="c2", name="zoom", parts=parts_to_wire(STILL)),
        Noticed(turn=1, code="nudge", text="told", message=to_wire(Message("user", (Text("go on"),)))),
        ContextEdited(turn=2, message=3, part=1, evicted=("f1", "f2"), stub="f1, f2: gone", freed_tokens=90),
        RequestSent(turn=2, messages=6, input_tokens=90),
        ReplyReceived(turn=2, message=to_wire(calling("c3")), usage=Usage(90, 50, 0, 5), finish="tool_calls"),
        ToolCalled(turn=2, call=ToolCall("c3", "clip_video", {})),
        ToolReturned(turn=2, call_id="c3", name="clip_video", parts=parts_to_wire(LATER)),
        RunEnded(
            status="answered", answer="417", citations=(Citation("video-1", SHA, 80.0, None, "f1", True, "[f1]"),)
        ),
    ]


def recorded(folder: Path, events: list[Event]) -> Trajectory:
    with Journal.create(folder, SystemClock()) as journal:
        for event in events:
            journal.append(event)
    return Trajectory.read(folder)


def test_a_finished_run(tmp_path: Path) -> None:
    run = recorded(tmp_path, run_events())
    assert (run.status, run.question, run.answer, run.tool_calls) == ("answered", "what?", "417", 3)
    assert run.citations[0].handle == "f1"
    assert run.usage == Usage(140, 50, 0, 14)
    assert 0 <= run.duration_s < 10
    assert [(step.turn, len(step.calls), len(step.notices), len(step.edits)) for step in run.steps] == [
        (1, 2, 1, 0),
        (2, 1, 0, 1),
    ]
    second = run.steps[0].calls[1]
    assert second.called.call.name == "zoom" and second.returned is not None and second.returned.name == "zoom"


def test_where_it_looked(tmp_path: Path) -> None:
    run = recorded(tmp_path, run_events())
    assert run.looked() == {"video-1": (Span((10.0,), 1), Span((80.0, 82.0, 84.0), 3)), "image-1": ()}
    (_, span) = run.looked()["video-1"]
    assert (span.start_s, span.end_s, span.gap_s) == (80.0, 84.0, 2.0)
    assert list(run.views()) == ["f1", "f2", "z1", "f3", "f4"]


def test_the_context_it_ended_with(tmp_path: Path) -> None:
    run = recorded(tmp_path, run_events())
    assert run.messages() == (
        *OPENING,
        calling("c1", "c2"),
        Message("tool", (CLIP[0], Text("f1, f2: gone")), tool_call_id="c1"),
        Message("tool", STILL, tool_call_id="c2"),
        Message("user", (Text("go on"),)),
        calling("c3"),
        Message("tool", LATER, tool_call_id="c3"),
    )


@pytest.mark.parametrize("kept", range(1, 14))
def test_a_run_cut_off_anywhere_is_in_flight(tmp_path: Path, kept: int) -> None:
    run = recorded(tmp_path, run_events()[:kept])
    assert run.status == "in flight" and run.answer == "" and run.citations == ()
    assert len(run.events) == kept
    assert run.messages()[:2] == OPENING


def test_a_call_without_result_is_kept(tmp_path: Path) -> None:
    run = recorded(tmp_path, run_events()[:6])
    assert [call.returned is not None for call in run.steps[0].calls] == [True, False]


def test_a_turn_that_a_notice_splits_is_one_step(tmp_path: Path) -> None:
    full = Noticed(turn=1, code="context", text="full")
    request = RequestSent(turn=2, messages=7, input_tokens=90, allow_calls=False)
    run = recorded(tmp_path, [*run_events()[:9], full, request])
    assert [(step.turn, len(step.notices), len(step.edits)) for step in run.steps] == [(1, 2, 0), (2, 0, 1)]
    assert run.steps[1].request is not None and run.steps[1].request.allow_calls is False


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="no run in"):
        Trajectory.read(tmp_path / "nowhere")
    with pytest.raises(JournalError, match="does not begin with run_start"):
        recorded(tmp_path, run_events()[1:])
