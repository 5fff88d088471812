"""Pictures that a tool returns reach the model: the very pixels, in order, the same bytes at every later turn."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from keyeloop.agent.agent import Agent
from keyeloop.model_backend.base import Delta, Reply, Request, Sampling
from keyeloop.model_backend.keye.model import KeyeModel
from keyeloop.model_backend.local.engine import LocalBackend
from keyeloop.model_backend.openai_chat.backend import OpenAIChat
from keyeloop.model_backend.scripted import ScriptedBackend, call
from keyeloop.model_backend.sglang.native.backend import SGLangNative
from keyeloop.runtime.config import Config
from keyeloop.runtime.media import MediaStore
from keyeloop.tools.decorate import FunctionTool, tool
from tests.agent.small_tools import add
from tests.model_backend.loopback_server import Received, called, loopback, said
from tests.model_backend.native_replies import generated, native_server

SIDE_PX = 196
"""Which keye-tiny takes as it is: 49 tokens."""
Array = NDArray[np.uint8]
TURNS = [("show", "{}"), ("add", '{"a": 1, "b": 2}'), ("add", '{"a": 3, "b": 4}')]


def noise(count: int) -> list[Array]:
    """Pictures that any loss would change, each unlike the others."""
    return [np.random.default_rng(number).integers(0, 256, (SIDE_PX, SIDE_PX, 3), np.uint8) for number in range(count)]


def showing(pixels: list[Array]) -> FunctionTool[[], Any]:
    @tool
    def show() -> Any:
        """Show pictures."""
        return pixels[0] if len(pixels) == 1 else pixels

    return show


def decoded(url: str) -> Array:
    assert url.startswith("data:image/png;base64,")
    data = base64.b64decode(url.partition(",")[2])
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), 1), np.uint8)[:, :, ::-1]


def same(arrived: list[Array], pixels: list[Array]) -> bool:
    return len(arrived) == len(pixels) and all(map(np.array_equal, arrived, pixels))


@pytest.mark.parametrize("count", [1, 30])
@pytest.mark.parametrize("place", ["tool", "user"])
async def test_over_the_chat_interface(count: int, place: Any, tmp_path: Path) -> None:
    pixels = noise(count)
    replies = [called(*turn) for turn in TURNS] + [said("done")]
    with loopback(replies) as server:
        model = OpenAIChat(server.address + "#m", context_tokens=65_536, pictures=place, call_form="native")
        answer = await Agent(model, [showing(pixels), add], runs=tmp_path, settings=Config()).run("?")
    assert answer.text == "done" and len(server.received) == 4
    found = [
        [part["image_url"]["url"] for message in request.json["messages"] for part in parts_of(message)]
        for request in server.received
    ]
    assert found[0] == [] and same([decoded(url) for url in found[1]], pixels)
    assert found[1] == found[2] == found[3], "the same bytes at every later turn"


def parts_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    return [part for part in content if part["type"] == "image_url"] if isinstance(content, list) else []


@pytest.mark.parametrize("count", [1, 30])
async def test_over_sglangs_own_interface(count: int, tmp_path: Path) -> None:
    pixels = noise(count)
    calls = [f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>' for name, arguments in TURNS]
    texts = iter([f"</think>\n\n{said}" for said in (*calls, "done")])
    play: Callable[[Received], Any] = lambda request: generated(next(texts), len(request.json["input_ids"]))  # noqa: E731
    with native_server(play) as server:
        model = SGLangNative(f"{server.native}#keye-tiny")
        answer = await Agent(model, [showing(pixels), add], runs=tmp_path, settings=Config()).run("?")
    assert answer.text == "done"
    sent = [request.json for request in server.received if request.path == "/generate"]
    found = [request.get("image_data", []) for request in sent]
    assert found[0] == [] and same([decoded(url) for url in found[1]], pixels)
    assert found[1] == found[2] == found[3]
    for before, after in pairwise(sent):
        assert after["input_ids"][: len(before["input_ids"])] == before["input_ids"], "and the prefix stays"


class Steered:
    """The local engine reads every request of a run; what it would answer is replaced by a script."""

    def __init__(self, engine: LocalBackend, script: ScriptedBackend) -> None:
        self._engine, self._script = engine, script
        self.cached: list[tuple[int, int]] = []
        self.capabilities, self.count_tokens, self.close = engine.capabilities, engine.count_tokens, engine.close

    async def generate(
        self, request: Request, media: MediaStore, on_delta: Callable[[Delta], None] | None = None
    ) -> Reply:
        read = await self._engine.generate(replace(request, sampling=Sampling(max_tokens=1)), media)
        self.cached.append((read.usage.input_tokens, read.usage.cached_tokens))
        return await self._script.generate(request, media, on_delta)


@pytest.mark.parametrize("count", [1, 30])
async def test_on_the_local_engine(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, arrived = noise(count), list[Array]()
    encode = KeyeModel.encode_pictures

    def watched(self: KeyeModel, pictures: Any, *rest: Any, **options: Any) -> Any:
        arrived.extend(pictures)
        return encode(self, pictures, *rest, **options)

    monkeypatch.setattr(KeyeModel, "encode_pictures", watched)
    engine = LocalBackend.load("keye-tiny")
    model = Steered(engine, ScriptedBackend([call("show"), call("add", a=1, b=2), "done"]))
    answer = await Agent(model, [showing(pixels), add], runs=tmp_path, settings=Config()).run("?")
    assert answer.text == "done"
    assert same(arrived, pixels), "each once, in order: at the later turn the same bytes are known"
    (_, _), (second, _), (third, cached) = model.cached
    assert cached >= second - 1 and third > second
    await engine.close()
