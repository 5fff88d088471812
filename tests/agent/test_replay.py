"""Recorded runs played again: from their record alone, with other tools, and from a turn on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from keyeloop.agent.agent import Agent
from keyeloop.agent.comparing import compare
from keyeloop.agent.replaying.replay import replay
from keyeloop.agent.replaying.tape import Diverged
from keyeloop.model_backend.scripted import Script, call
from keyeloop.runtime.content import Image, Part, Text
from keyeloop.runtime.errors import InputError
from keyeloop.runtime.events import RunEnded
from keyeloop.runtime.evidence import Region
from keyeloop.runtime.trajectory import Trajectory, summarise
from keyeloop.tools.base import ToolContext
from keyeloop.tools.decorate import tool
from tests.agent.cut_runs import CASES, Steadfast, cut, told
from tests.agent.small_tools import SIDE_PX, add, look


async def test_a_replay_reproduces_every_kind_of_run(tmp_path: Path) -> None:
    for case, (script, options, model) in CASES.items():
        agent = Agent(Steadfast(script, **model), [look, add], runs=tmp_path / "runs", **options)
        answer = await agent.run("what was there?")
        if answer.status == "answered" and case == "calls":
            script.append("again")
            await Agent(Steadfast([*script]), [look, add], runs=tmp_path / "runs").ask(answer.run, "and?")
        done = await replay(answer.run, tmp_path / "again" / answer.run.name)
        assert told(done.folder) == told(answer.run) and not done.cut_off
        assert Trajectory.read(done.folder).citations == Trajectory.read(answer.run).citations


async def test_a_replay_finds_what_was_changed_in_the_record(tmp_path: Path) -> None:
    answer = await Agent(Steadfast(CASES["calls"][0][:4]), [look, add], runs=tmp_path / "runs").run("?")
    path = answer.run / "journal.jsonl"
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    lines[-1]["answer"] = "8 [f1] [f2 100,100,200,200]"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(Diverged, match=r"has another answer: recorded .*8.*, now .*7"):
        await replay(answer.run, tmp_path / "again")


async def test_a_replay_of_a_run_without_end_goes_as_far_as_it_goes(tmp_path: Path) -> None:
    whole = await Agent(Steadfast(CASES["calls"][0][:4]), [look, add], runs=tmp_path / "whole").run("?")
    folder = cut(whole.run, 12, tmp_path)
    done = await replay(folder, tmp_path / "again")
    assert done.cut_off and told(done.folder)[:12] == told(folder)


async def test_a_fork_keeps_what_was_before_and_asks_anew_from_there(tmp_path: Path) -> None:
    script: list[Script] = [call("look", at_s=1), call("look", at_s=2), call("add", a=1, b=1), "2 [f2]"]
    whole = await Agent(Steadfast(script), [look, add], runs=tmp_path).run("?")
    other: list[Script] = [*script[:2], call("look", at_s=9), "9 [f3] [f1]"]
    backend = Steadfast(other)
    fork = Agent(backend, [look, add], runs=tmp_path)
    end: RunEnded | None = None
    async for event in fork.stream_fork(whole.run, 3):
        end = event if isinstance(event, RunEnded) else end
    assert end is not None and end.answer == "9 [f3] [f1]" and all(citation.seen for citation in end.citations)
    (folder,) = (path for path in tmp_path.glob("[!.]*") if path != whole.run)
    run = Trajectory.read(folder)
    assert run.start.fork is not None and (run.start.fork.run_id, run.start.fork.turn) == (whole.run.name, 3)
    assert told(folder)[1:9] == told(whole.run)[1:9] and backend.asked == [2, 3]
    assert [step.turn for step in run.steps] == [1, 2, 3, 4] and summarise(folder).forked_from == whole.run.name
    assert summarise(folder).problem == "" and len(run.looks) == 3
    with pytest.raises(InputError, match="has the steps 1 to 4: there is no step 7"):
        async for _ in fork.stream_fork(whole.run, 7):
            pass


@tool(name="look", in_order=True)
def look_otherwise(at_s: float, context: ToolContext) -> list[Part]:
    """Look at a moment of the scene."""
    pixels = np.full((SIDE_PX, SIDE_PX, 3), int(at_s) % 256, np.uint8)
    if at_s == 2:
        pixels[70:140, 140:210] = 255
    view = context.views.frame("scene", "5" * 64, at_s, Region(0, 0, SIDE_PX, SIDE_PX))
    return [Text(f"{view.handle} at {at_s:.1f} s"), Image(context.media.put_image(pixels), view)]


async def test_tools_played_again_give_the_same_or_are_told_with_their_pictures(tmp_path: Path) -> None:
    script: list[Script] = [call("look", at_s=1), call("look", at_s=2), call("add", a=1, b=1), "2 [f2]"]
    whole = await Agent(Steadfast(script), [look, add], runs=tmp_path).run("?")
    same = await replay(whole.run, tmp_path / "same", tools=[look, add])
    assert compare(Trajectory.read(whole.run), Trajectory.read(same.folder)).differences == ()
    assert told(same.folder) == told(whole.run)
    other = await replay(whole.run, tmp_path / "other", tools=[look_otherwise, add])
    found = compare(Trajectory.read(whole.run), Trajectory.read(other.folder))
    assert [(one.where, one.what) for one in found.differences] == [("step 2", "picture f2")]
    assert found.first is not None and found.first.picture is not None
    picture = found.first.picture
    assert picture.changed is not None and 0.05 < picture.changed < 0.08 and picture.box is not None
    assert all(abs(side - wanted) <= 8 for side, wanted in zip(picture.box, (140, 70, 210, 140), strict=True))
    assert "of the pixels differ" in picture.words


async def test_two_runs_part_at_their_first_difference(tmp_path: Path) -> None:
    one = await Agent(Steadfast([call("look", at_s=1), "1"]), [look, add], runs=tmp_path).run("what?")
    other = await Agent(Steadfast([call("look", at_s=1), call("add", a=1, b=1), "2"]), [look], runs=tmp_path).run(
        "what?"
    )
    found = compare(Trajectory.read(one.run), Trajectory.read(other.run)).differences
    assert (found[0].what, found[0].one, found[0].other) == ("tools", "look, add", "look")
    assert ("step 2", "reply", "1", "") in {(one.where, one.what, one.one, one.other) for one in found}
    assert [one.what for one in found if one.where == "step 2"] == ["reply", "call"]
    assert found[-1].what == "answer" and (found[-1].one, found[-1].other) == ("1", "2")
    assert compare(Trajectory.read(one.run), Trajectory.read(one.run)).first is None
