"""A sandbox that died, got stuck or ran out of memory: an event in the journal and an error to the model."""

from __future__ import annotations

from pathlib import Path

from keyeloop.agent.agent import Agent
from keyeloop.model_backend.scripted import Script, ScriptedBackend, call
from keyeloop.runtime.trajectory import Trajectory
from keyeloop.sandbox.fake import FakeSandbox, executed
from keyeloop.testing import python_tool


async def test_a_sandbox_that_died_is_an_event_of_the_run(tmp_path: Path) -> None:
    sandbox = FakeSandbox([executed(status="oom", state_lost=True), executed("2\n", state_lost=True), "3\n"])
    script: list[Script] = [*(call("python", code=f"print({number})") for number in (1, 2, 3)), "3"]
    answer = await Agent(ScriptedBackend(script), [python_tool(sandbox)], runs=tmp_path).run("what?")
    run = Trajectory.read(answer.run)
    noticed = [(step.turn, notice.code, notice.text) for step in run.steps for notice in step.notices]
    assert noticed == [
        (1, "sandbox", "python: oom in execution 1; state lost"),
        (2, "sandbox", "python: ok in execution 2; state lost"),
    ]
    first, second, _ = (one.returned for step in run.steps for one in step.calls)
    assert first is not None and first.error and second is not None and not second.error
    assert answer.status == "answered" and not answer.citations
