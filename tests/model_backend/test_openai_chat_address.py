"""``http://host:port/v1#name``: read, refused with the cure, and completed by what the server lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from keyeloop.agent.agent import Agent
from keyeloop.agent.cli import main
from keyeloop.agent.models import check_model, configured_model, load_model
from keyeloop.model_backend.base import Request
from keyeloop.model_backend.openai_chat.address import parse_address
from keyeloop.model_backend.openai_chat.backend import OpenAIChat
from keyeloop.runtime.config import load_config
from keyeloop.runtime.content import Message, Text
from keyeloop.runtime.errors import BackendError, InputError
from keyeloop.runtime.media import MediaStore
from tests.model_backend.loopback_server import Play, Received, failed, loopback, said


def test_an_address_reads_back() -> None:
    address = parse_address("http://127.0.0.1:8000/v1#Kwai-Keye/Keye-VL-2.0-30B-A3B")
    assert (address.base, address.name, address.loopback) == (
        "http://127.0.0.1:8000/v1",
        "Kwai-Keye/Keye-VL-2.0-30B-A3B",
        True,
    )
    assert parse_address(str(address)) == address
    assert parse_address("https://api.example.org/openai/v1/#m").base == "https://api.example.org/openai/v1"
    assert not parse_address("https://api.example.org/v1").loopback
    assert str(parse_address("HTTP://[::1]:8000#m")) == "http://[::1]:8000/v1#m"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("htp://localhost:8000/v1#m", "begins with htp://"),
        ("http://#m", "names no host"),
        ("http://localhost:99999/v1#m", "Port out of range"),
        ("http://[::1/v1#m", "cannot be read"),
        ("http://local host/v1#m", "holds white space"),
        ("http://me:hunter2@localhost/v1#m", "set KEYELOOP_API_KEY"),
        ("http://localhost/v1?key=hunter2#m", "set KEYELOOP_API_KEY"),
    ],
)
def test_a_bad_address_is_one_line_with_the_cure(text: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    for refuse in (check_model, Agent):
        with pytest.raises(InputError, match="write http://host:port/v1#name") as caught:
            refuse(text)
        assert told in str(caught.value)
    with pytest.raises(SystemExit) as ended:
        main(["run", "what?", "--model", text])
    said_so = capsys.readouterr().err
    assert (ended.value.code, said_so.count("\n"), "hunter2" in said_so) == (2, 1, False)


def test_one_listed_model_needs_no_name() -> None:
    with loopback([]) as server:
        model = OpenAIChat(server.address, pictures="tool", call_form="native")
        assert model.capabilities().model == f"{server.address}#m"
        assert model.capabilities().context_tokens == 32_768
    assert not server.received


@pytest.mark.parametrize("models", [("a", "b"), ()])
def test_otherwise_the_name_is_asked_for(models: tuple[str, ...]) -> None:
    with loopback([], models) as server, pytest.raises(InputError) as caught:
        OpenAIChat(server.address).capabilities()
    assert str(caught.value).endswith(f"write {server.address}#{models[0] if models else 'name'} to choose one")
    assert "a, b" in str(caught.value) or not models


def test_the_context_is_what_the_server_lists_for_the_model() -> None:
    with loopback([], ("m",), meta={"n_ctx": 2048, "n_ctx_train": 9999}) as server:
        assert OpenAIChat(server.address, pictures="tool", call_form="native").capabilities().context_tokens == 2048
        known = OpenAIChat(server.address, pictures="tool", call_form="native", context_tokens=77)
        assert known.capabilities().context_tokens == 77


def test_a_server_that_lists_nothing_is_asked_all_the_same() -> None:
    with loopback([]) as server:
        model = OpenAIChat(server.address.replace("/v1", "/nowhere") + "#m", pictures="tool", call_form="native")
        assert model.capabilities().model.endswith("/nowhere#m")


def test_a_key_that_is_refused_is_told_with_the_cure() -> None:
    def play(_: Received) -> Play:
        return failed(401, "bad key sk-1234")

    with loopback(play) as server, pytest.raises(BackendError, match=r"401: bad key \*\*\*; set KEYELOOP_API_KEY"):
        OpenAIChat(server.address + "#m", api_key="sk-1234").capabilities()


def test_settings_reach_the_client() -> None:
    environment = {
        "KEYELOOP_MODEL": "http://127.0.0.1:1/v1#m",
        "KEYELOOP_PICTURES": "omit",
        "KEYELOOP_CALL_FORM": "text",
        "KEYELOOP_CONTEXT_TOKENS": "99",
    }
    model = configured_model(load_config(environment=environment))
    assert isinstance(model, OpenAIChat)
    assert model.capabilities().context_tokens == 99
    assert configured_model(load_config(environment={})) == "keye-tiny"
    assert isinstance(load_model("http://127.0.0.1:1/v1#m"), OpenAIChat)


@pytest.mark.parametrize("given", [{}, {"context_tokens": 100, "pictures": "user", "call_form": "native"}])
async def test_a_name_that_the_server_does_not_list_is_told_with_what_it_serves(
    given: dict[str, Any], tmp_path: Path
) -> None:
    question = Request((Message("user", (Text("hi"),)),))
    with loopback(lambda _: said("hello"), models=("keye-a", "keye-b:latest")) as server:
        wrong = OpenAIChat(f"{server.address}#keye-c", **given)
        with pytest.raises(InputError, match=r"serves no model 'keye-c'; it lists keye-a, keye-b:latest: .*#keye-a$"):
            await wrong.generate(question, MediaStore(tmp_path))
        assert not server.received, "no chat request"
        for name in ("keye-a", "keye-b", "keye-b:latest", "keye-a:adapter"):
            right = OpenAIChat(f"{server.address}#{name}", **given)
            assert (await right.generate(question, MediaStore(tmp_path))).message.text == "hello"
        asked = {request.json["model"] for request in server.received}
    assert asked == {"keye-a", "keye-b", "keye-b:latest", "keye-a:adapter"}
    with loopback(lambda _: said("hello"), models=()) as server:
        unlisted = OpenAIChat(f"{server.address}#anything", **given)
        assert (await unlisted.generate(question, MediaStore(tmp_path))).message.text == "hello"


def test_the_command_line_asks_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with loopback(lambda _: said("forty-two", prompt=30)) as server:
        monkeypatch.setenv("KEYELOOP_MODEL", server.address)
        monkeypatch.setenv("KEYELOOP_PRICE_INPUT", "2")
        monkeypatch.setenv("KEYELOOP_PRICE_OUTPUT", "4")
        with pytest.raises(SystemExit) as ended:
            main(["run", "how many?", "--max-cost", "1"])
        assert ended.value.code == 0
        with pytest.raises(SystemExit):
            main(["show", str(next((tmp_path / "runs").glob("[!.]*")))])
    shown = capsys.readouterr().out
    assert "forty-two" in shown and shown.count("cost 6.4e-05") == 4
