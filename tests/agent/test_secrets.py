"""Canaries: keys planted wherever they are configured, echoed from everywhere, and found in no record."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import pytest

from keyeloop.agent.agent import Agent
from keyeloop.agent.exporting.atif import atif_document
from keyeloop.agent.exporting.pictures import ExportedPictures
from keyeloop.model_backend.openai_chat.backend import OpenAIChat
from keyeloop.model_backend.sglang.native.backend import SGLangNative
from keyeloop.runtime.clock import SystemClock
from keyeloop.runtime.errors import BackendError, ToolError
from keyeloop.runtime.events import Noticed
from keyeloop.runtime.journal import Journal, read_journal
from keyeloop.runtime.journal.checking import check_run
from keyeloop.runtime.journal.concealing import Concealer, environment_secrets
from keyeloop.runtime.trajectory import Trajectory
from keyeloop.tools.decorate import tool
from keyeloop.tools.mcp.client import McpServer, McpTool
from keyeloop.tools.search.providers.tavily import Tavily
from keyeloop.tools.search.web import WebSearch
from tests.model_backend.loopback_server import Play, Received, called, loopback, said

CANARIES = {
    "KEYELOOP_API_KEY": "canary-of-the-model-1f0c",
    "TAVILY_API_KEY": "tvly-canary+/of=search-77",
    "GITHUB_TOKEN": 'ghp_canary"quoted"\\slashed',
    "DATABASE_PASSWORD": "geheimnis-ünicode-canary",
}
GIVEN = "given-in-code-canary-4242"


@tool(on_crash="continue")
def leak(how: str) -> str:
    """Tell everything."""
    import os

    told = " ".join(os.environ[name] for name in CANARIES) + " " + GIVEN
    if how == "text":
        return told + quote(CANARIES["TAVILY_API_KEY"], safe="")
    if how == "json":
        return json.dumps({name: os.environ[name] for name in CANARIES})
    if how == "error":
        raise ToolError(f"401 for {told}")
    raise RuntimeError(f"crashed with {told}")


def forms(value: str) -> list[bytes]:
    return [value.encode(), json.dumps(value)[1:-1].encode(), quote(value, safe="").encode()]


def assert_clean(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            for canary in (*CANARIES.values(), GIVEN):
                assert not any(form in data for form in forms(canary)), f"{canary} is in {path}"


async def test_no_key_gets_into_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)

    def echoing(request: Received) -> Play:
        turn = len([message for message in request.json["messages"] if message["role"] == "assistant"])
        how = ["text", "json", "error", "crash"]
        if turn < len(how) and request.json.get("tools") and len(request.json["messages"]) > 1:
            return called("leak", json.dumps({"how": how[turn]}), 40 + 10 * turn)
        return said(f"your header was {request.headers['authorization']} [f1]", prompt=90)

    with loopback(echoing) as server:
        model = OpenAIChat(server.address, api_key=GIVEN, context_tokens=9000, pictures="user", call_form="native")
        agent = Agent(model, [leak], runs=tmp_path / "runs")
        answer = await agent.run(f"Say it all: {CANARIES['GITHUB_TOKEN']}")
        await agent.close()
    run = Trajectory.read(answer.run)
    assert len(run.steps) == 5 and run.tool_calls == 4, "every way of telling was tried"
    assert_clean(tmp_path)
    text = (answer.run / "journal.jsonl").read_text()
    assert text.count("[secret]") >= 5 * 4 and check_run(answer.run).sound
    (tmp_path / "atif.json").write_text(json.dumps(atif_document(run, ExportedPictures(None))))
    assert_clean(tmp_path)


async def test_a_server_that_echoes_the_key_in_its_refusal(tmp_path: Path) -> None:
    def refusing(request: Received) -> Play:
        return Play(403, {"Content-Type": "text/plain"}, (f"no: {dict(request.headers)}".encode(),))

    with loopback(refusing) as server:
        model = OpenAIChat(
            server.address, api_key=GIVEN, context_tokens=9000, pictures="user", call_form="native", tries=1
        )
        with pytest.raises(BackendError):
            await Agent(model, [], runs=tmp_path).run("?")
        await model.close()
    (folder,) = tmp_path.glob("[!.]*")
    assert Trajectory.read(folder).status == "failed"
    assert_clean(tmp_path)


def test_everything_that_holds_a_key_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYELOOP_API_KEY", CANARIES["KEYELOOP_API_KEY"])
    assert OpenAIChat("http://127.0.0.1:1/v1").secrets == (CANARIES["KEYELOOP_API_KEY"],)
    assert SGLangNative("sglang://127.0.0.1:1#keye-tiny", api_key=GIVEN).secrets == (GIVEN,)
    assert WebSearch([Tavily("tvly-given")]).secrets == ("tvly-given",)
    server = McpServer("http://127.0.0.1:1/mcp", headers={"Authorization": f"Bearer {GIVEN}"})
    assert GIVEN in server.secrets and isinstance(McpTool.secrets, property)


def test_what_is_concealed_in_a_line(tmp_path: Path) -> None:
    assert environment_secrets({"A_KEY": "12345678", "PATH": "/bin:/usr/bin", "my_token": "abcdefgh"}) == [
        "12345678",
        "abcdefgh",
    ]
    concealer = Concealer(["short", CANARIES["GITHUB_TOKEN"], CANARIES["DATABASE_PASSWORD"]])
    line = json.dumps({"text": f"short {CANARIES['GITHUB_TOKEN']}", "more": [CANARIES["DATABASE_PASSWORD"]]}).encode()
    assert json.loads(concealer.conceal(line)) == {"text": "short [secret]", "more": ["[secret]"]}
    with Journal.create(tmp_path / "run", SystemClock()) as journal:
        journal.conceal([GIVEN])
        journal.append(Noticed(turn=1, code="x", text=f"key {GIVEN}"))
    (notice,) = read_journal(tmp_path / "run")
    assert isinstance(notice, Noticed) and notice.text == "key [secret]"
