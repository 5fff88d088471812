"""What is shipped for tests of one's own: the guard stops real models, the fake sandbox behaves like the real one."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import inspect
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from keyeloop import Agent, Limits
from keyeloop.model_backend.openai_chat.backend import OpenAIChat
from keyeloop.runtime.errors import InputError, SandboxError, UsageError
from keyeloop.sandbox.protocol import Sandbox
from keyeloop.sandbox.session import WorkerSandbox
from keyeloop.sandbox.spec import WORK
from keyeloop.testing import (
    Display,
    ExecError,
    ExecResult,
    FakeSandbox,
    ModelRequestForbidden,
    ScriptedBackend,
    call,
    executed,
    forbid_model_requests,
    python_tool,
)
from tests.test_layout import ROOT

NOWHERE = "http://127.0.0.1:9/v1#nothing"
GUARD = "require_requests_allowed"


async def test_a_request_to_a_real_model_is_an_error_that_names_the_cure(tmp_path: Path) -> None:
    agent = Agent(OpenAIChat(NOWHERE, context_tokens=4096, pictures="omit"), [], runs=tmp_path)
    with forbid_model_requests():
        with pytest.raises(ModelRequestForbidden, match=r"request to http://127.0.0.1:9/v1#nothing was .* scripted"):
            await agent.run("what?")
        (outcome,) = await agent.run_many(["what?"])
    assert outcome.status == "failed" and "request to" in outcome.reason
    assert isinstance(outcome.error, ModelRequestForbidden) and issubclass(ModelRequestForbidden, UsageError)


async def test_scripted_and_replayed_models_answer_as_ever(tmp_path: Path) -> None:
    with forbid_model_requests():
        recorded = await Agent(ScriptedBackend(["42"]), [], runs=tmp_path).run("what?")
        replayed = await Agent(f"replay:{recorded.run}", [], runs=tmp_path).run("what?")
    assert str(replayed) == "42"


def test_every_backend_that_is_no_script_looks_at_the_guard_first() -> None:
    """Otherwise a new backend would be asked by tests that forbid it."""
    asked: dict[str, bool] = {}
    for path in sorted((ROOT / "model_backend").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.AsyncFunctionDef) and node.name == "generate":
                called = {
                    each.func.id for each in ast.walk(node) if isinstance(each, ast.Call) and hasattr(each.func, "id")
                }
                asked[str(path.relative_to(ROOT / "model_backend"))] = GUARD in called
    for name in ("base.py", "scripted.py", "replay.py"):
        assert asked.pop(name) is False
    assert len(asked) >= 2 and all(asked.values()), asked


def forbidden() -> bool:
    from keyeloop.model_backend.forbidding import require_requests_allowed

    try:
        require_requests_allowed("a model")
    except ModelRequestForbidden:
        return True
    return False


def test_the_guard_holds_in_threads_and_programs_and_ends_with_its_block() -> None:
    seen: list[bool] = []
    program = (
        "from keyeloop.model_backend.forbidding import require_requests_allowed as ask\n"
        "try: ask('m')\nexcept Exception as error: print(type(error).__name__)"
    )
    with forbid_model_requests():
        with forbid_model_requests():
            thread = threading.Thread(target=lambda: seen.append(forbidden()))
            thread.start()
            thread.join()
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        seen.append(forbidden())
    assert seen == [True, True] and done.stdout == "ModelRequestForbidden\n"
    assert not forbidden()
    with pytest.raises(ZeroDivisionError), forbid_model_requests():
        _ = 1 / 0
    assert not forbidden() and forbid_model_requests()(forbidden)() is True


async def test_the_python_tool_runs_on_prepared_results(tmp_path: Path) -> None:
    sandbox = FakeSandbox(
        [
            "6\n",
            ExecError("NameError", "name 'y' is not defined", "", 1),
            executed(displays=[Display({"text/plain": "7"})]),
        ],
        files={"/out/table.csv": b"a,b\n"},
    )
    model = ScriptedBackend([*(call("python", code=code) for code in ("print(2 * 3)", "y", "x")), "6 and 7"])
    answer = await Agent(model, [python_tool(sandbox)], runs=tmp_path).run("what is it?")
    assert sandbox.executed == ["print(2 * 3)", "y", "x"] and sandbox.closed
    heard = [message.text for message in model.requests[-1].messages if message.role == "tool"]
    assert heard[0] == "6\nfile /out/table.csv: text/plain, 4 bytes"
    assert heard[1].startswith("Error: NameError: name 'y' is not defined (line 1: y)") and heard[2] == "7"
    assert answer.status == "answered"


async def test_a_function_makes_a_sandbox_for_each_of_many_runs(tmp_path: Path) -> None:
    made: list[FakeSandbox] = []

    def make() -> FakeSandbox:
        made.append(FakeSandbox(lambda code: f"ran {code}"))
        return made[-1]

    model = ScriptedBackend(lambda request: "done" if len(request.messages) > 2 else call("python", code="1"))
    agent = Agent(model, [python_tool(make)], limits=Limits(turns=3), runs=tmp_path)
    outcomes = await agent.run_many(["one", "two", "three"])
    assert [str(outcome.answer) for outcome in outcomes] == ["done"] * 3
    assert len(made) == 3 and all(each.closed and each.executed == ["1"] for each in made)


async def test_a_tool_that_needs_another_sandbox_after_the_end_is_told(tmp_path: Path) -> None:
    tool = python_tool(FakeSandbox(["1", "2"]))
    model = ScriptedBackend([call("python", code="1"), "done", call("python", code="2"), "no"])
    agent = Agent(model, [tool], runs=tmp_path)
    await agent.run("one")
    await agent.run("two")
    assert "the sandbox is closed" in model.requests[-1].messages[-1].text


def test_the_fake_keeps_the_protocol() -> None:
    sandbox: Sandbox = FakeSandbox([executed("out", stderr="err"), lambda code: f"ran {code}"])
    assert FakeSandbox.available().ok and sandbox.isolation.boundary == "none" and not sandbox.isolation.network
    with sandbox:
        sandbox.start()
        first, second = sandbox.exec("a", timeout_s=3), sandbox.exec("b")
        assert (first.status, first.stdout, first.stderr, first.index) == ("ok", "out", "err", 1)
        assert (second.stdout, second.index, second.state_lost) == ("ran b", 2, False)
        with pytest.raises(SandboxError, match="has 2 results; execution 3 has none"):
            sandbox.exec("c")
        sandbox.put("in.txt", b"1234")
        assert sandbox.get(f"{WORK}/in.txt") == sandbox.get("in.txt", max_bytes=4) == b"1234"
        for path in ("/out/x", "../x", ""):
            with pytest.raises(InputError):
                sandbox.put(path, b"")
        with pytest.raises(InputError, match="4 bytes, more than 3"):
            sandbox.get("in.txt", max_bytes=3)
        with pytest.raises(InputError, match="No such file"):
            sandbox.get("gone.txt")
        sandbox.interrupt()
        sandbox.reset()
        with pytest.raises(InputError):
            sandbox.get("in.txt")
        sandbox.close()
    assert isinstance(sandbox, FakeSandbox) and (sandbox.interrupts, sandbox.resets) == (1, 1)
    assert sandbox.timeouts_s == [3, None, None]
    with pytest.raises(SandboxError, match="closed"):
        sandbox.exec("d")


def test_files_below_out_are_artifacts_of_the_first_execution() -> None:
    sandbox = FakeSandbox(["", ""], files={"/out/a/plot.png": b"\x89PNG\r\n\x1a\n", "notes.txt": b"x"})
    (artifact,) = sandbox.exec("draw()").artifacts
    assert (str(artifact.path), artifact.size, artifact.mime) == ("a/plot.png", 8, "image/png")
    assert artifact.sha256 == hashlib.sha256(sandbox.get("/out/a/plot.png")).hexdigest()
    assert sandbox.exec("x").artifacts == () and sandbox.artifacts() == (artifact,)


def test_the_fake_has_the_signatures_of_the_real_one() -> None:
    """A test that passes on the fake must not fail on a real sandbox for the way it calls it."""
    names = [name for name in vars(Sandbox) if not name.startswith("_") and callable(getattr(Sandbox, name))]
    assert {"exec", "put", "get", "reset", "close"} <= set(names)
    for name in names:
        for other in (Sandbox, WorkerSandbox):
            theirs, ours = inspect.signature(getattr(other, name)), inspect.signature(getattr(FakeSandbox, name))
            assert theirs == ours, name


def test_prepared_results_may_raise_and_fail_like_real_ones() -> None:
    def die(code: str) -> ExecResult:
        raise SandboxError("the sandbox died")

    sandbox = FakeSandbox([executed(status="timeout", state_lost=True), die])
    assert sandbox.exec("loop()").status == "timeout"
    with pytest.raises(SandboxError, match="died"):
        asyncio.run(asyncio.to_thread(sandbox.exec, "x"))
