"""An agent in Python heeds the same settings as the command line: argument, environment, file, in this order."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyeloop.agent.agent import Agent
from keyeloop.agent.cli import main
from keyeloop.agent.evaluation.judged import judge_agent
from keyeloop.model_backend.base import Sampling
from keyeloop.model_backend.scripted import ScriptedBackend, call
from keyeloop.runtime.budget import Limits
from keyeloop.runtime.config import Config
from keyeloop.runtime.errors import ConfigError, InputError
from keyeloop.runtime.trajectory import Trajectory
from tests.agent.small_tools import add
from tests.model_backend.loopback_server import loopback, said

FILE = "turns = 7\ntemperature = 0.5\ntop_p = 0.9\nruns = 'kept'\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keyeloop.toml").write_text(FILE)
    monkeypatch.setenv("KEYELOOP_TURNS", "5")
    monkeypatch.setenv("KEYELOOP_TOP_K", "20")
    monkeypatch.setenv("KEYELOOP_PRICE_INPUT", "1")
    monkeypatch.setenv("KEYELOOP_PRICE_OUTPUT", "2")
    return tmp_path


async def test_what_is_not_given_comes_from_environment_and_file(place: Path) -> None:
    model = ScriptedBackend(["fine"])
    answer = await Agent(model).run("how?")
    assert answer.run.parent == Path("kept") and answer.usage.cost is not None
    assert model.requests[0].sampling == Sampling(temperature=0.5, top_p=0.9, top_k=20)
    assert Trajectory.read(answer.run).start.config["limits"]["turns"] == 5


async def test_what_is_given_counts_before_both(place: Path) -> None:
    model = ScriptedBackend([call("add", a=1, b=2), call("add", a=1, b=3), "3"])
    sampling, limits = Sampling(temperature=0.1), Limits(turns=2)
    answer = await Agent(model, [add], limits=limits, sampling=sampling, runs="mine").run("how much?")
    assert answer.status == "budget" and answer.run.parent == Path("mine")
    assert model.requests[0].sampling == sampling


async def test_settings_that_are_passed_stand_for_both(place: Path) -> None:
    model = ScriptedBackend(["fine"])
    answer = await Agent(model, settings=Config()).run("how?")
    assert answer.run.parent == Path("runs") and answer.usage.cost is None
    assert model.requests[0].sampling == Sampling()


async def test_a_judge_heeds_no_setting_of_the_judged_model(place: Path) -> None:
    model = ScriptedBackend(["fine"])
    answer = await judge_agent(model, "judged").run("is it?")
    assert answer.usage.cost is None and model.requests[0].sampling == Sampling()


async def test_the_model_its_server_and_the_documents_come_from_settings(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "facts").mkdir()
    (place / "facts" / "one.md").write_text("Water is wet.")
    with loopback([said("yes")]) as server:
        monkeypatch.setenv("KEYELOOP_MODEL", f"{server.address}#m")
        monkeypatch.setenv("KEYELOOP_CONTEXT_TOKENS", "9000")
        monkeypatch.setenv("KEYELOOP_PICTURES", "user")
        monkeypatch.setenv("KEYELOOP_CALL_FORM", "native")
        monkeypatch.setenv("KEYELOOP_DOCUMENTS", "facts")
        agent = Agent()
        planned = await agent.plan("is water wet?")
        answer = await agent.run("is water wet?")
    assert planned.context_tokens == 9000 and str(answer) == "yes"
    start = Trajectory.read(answer.run).start
    assert start.config["context_tokens"] == 9000 and "web_search" in [spec.name for spec in start.tools]


def test_a_wrong_setting_is_told_when_the_agent_is_made(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYELOOP_MODEL", "keye-tinny")
    with pytest.raises(InputError, match="keye-tinny"):
        Agent()
    monkeypatch.setenv("KEYELOOP_TOPP", "0.9")
    with pytest.raises(ConfigError, match="did you mean KEYELOOP_TOP_P"):
        Agent(ScriptedBackend([]))


def test_draws_are_set_on_the_command_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["run", "how?", "--top-p", "1.5", "--model", "keye-tiny"])
    assert left.value.code == 2 and "top_p" in capsys.readouterr().err
