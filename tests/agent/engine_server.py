"""keye-tiny behind a real chat endpoint on 127.0.0.1: the local engine answers; a test may break one thing on the way.

Rows of named pictures (``f1 at 83.0 s:`` and an image) and clips both become the model's own clips.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keyeloop.model_backend.base import Reply, Request, Sampling
from keyeloop.model_backend.local.engine import LocalBackend
from keyeloop.model_backend.sglang.wire import CLIP, RAW_REPLIES, read_clip
from keyeloop.runtime.content import Image, Message, Part, Text, ToolCall, ToolSpec, Video
from keyeloop.runtime.evidence import Region, View
from keyeloop.runtime.media import MediaStore
from tests.model_backend.loopback_server import LoopbackServer, Play, Received, counts, delta, event, failed, loopback

NAME = "keye-tiny"
NAMED = re.compile(r"([fz]\d+) at (\d+\.\d) s:")
BOX = re.compile(r"(\d+),(\d+),(\d+),(\d+)\]")
Json = dict[str, Any]


def as_it_is(text: str) -> str:
    return text


def swapped(text: str) -> str:
    """Boxes as y0,x0,y1,x1."""
    return BOX.sub(r"\2,\1,\4,\3]", text)


@dataclass
class Engine:
    """Answers chat requests with a local backend."""

    backend: LocalBackend
    media: MediaStore
    status: Json | None
    """What stands at ``/server_info``."""
    say: Callable[[str], str] = as_it_is
    keeps_tools: bool = True
    call: Callable[[ToolCall], ToolCall] = lambda call: call
    """What becomes of a call that the model makes."""
    result: Callable[[Message], Message] = lambda message: message
    """What becomes of a tool's turn before the model reads it."""
    closes: bool = True
    """An answer follows its thinking; otherwise it stands inside."""
    parses: bool = True
    """Calls and thinking are taken apart by the server; otherwise they are left in the text."""
    thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    def __call__(self, received: Received) -> Play:
        if received.path == "/server_info":
            body = json.dumps({"internal_states": [{"keyeloop": self.status}] if self.status else [{}]}).encode()
            return Play(200, {"Content-Type": "application/json"}, (body,))
        if not received.path.endswith("/chat/completions"):
            return failed(404, "no such path")
        raw = received.json.get("chat_template_kwargs", {}).get(RAW_REPLIES, False)
        request = self.request_of(received.json, raw)
        reply = self.thread.submit(lambda: asyncio.run(self.answered(request))).result()
        return self.play(reply, self.parses and not raw)

    async def answered(self, request: Request) -> Reply:
        return await self.backend.generate(request, self.media)

    def request_of(self, body: Json, raw: bool) -> Request:
        functions = [tool["function"] for tool in body.get("tools", ())] if self.keeps_tools else []
        tools = tuple(ToolSpec(one["name"], one["description"], one["parameters"]) for one in functions)
        messages = tuple(self.message(one, raw) for one in body["messages"])
        return Request(messages, tools, Sampling(max_tokens=body["max_tokens"]), body.get("tool_choice") != "none")

    def message(self, told: Json, raw: bool) -> Message:
        content = told.get("content") or ""
        if told["role"] != "assistant":
            made = Message(told["role"], tuple(self.parts(content)), tool_call_id=told.get("tool_call_id"))
            return self.result(made) if made.role == "tool" else made
        if raw:
            return Message("assistant", raw=content)
        reasoning, text = told.get("reasoning_content", ""), content
        if "</think>" in content:
            reasoning, _, text = content.partition("</think>")
            reasoning, text = reasoning.removeprefix("<think>").strip("\n"), text.lstrip("\n")
        calls = tuple(
            ToolCall(call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
            for call in told.get("tool_calls", ())
        )
        return Message("assistant", (Text(text),) if text else (), reasoning, calls)

    def parts(self, content: str | list[Json]) -> Iterator[Part]:
        if isinstance(content, str):
            yield Text(content)
            return
        frames: list[Image] = []
        view: View | None = None
        for item in content:
            named = NAMED.fullmatch(item["text"]) if item["type"] == "text" else None
            if named is not None:
                view = self.view(named[1], float(named[2]))
            elif item["type"] == "image_url":
                image = self.image(item["image_url"]["url"], view)
                if view is not None and view.handle.startswith("f"):
                    frames.append(image)
                else:
                    yield image
                view = None
            else:
                if frames:
                    yield Video(tuple(frames))
                    frames = []
                yield self.clip(item["video_url"]["url"]) if item["type"] == "video_url" else Text(item["text"])
        if frames:
            yield Video(tuple(frames))

    def clip(self, url: str) -> Video:
        assert url.startswith(CLIP)
        return Video(tuple(self.image(one.url, self.view("f1", one.time_s)) for one in read_clip(url)))

    def image(self, url: str, view: View | None) -> Image:
        return Image(self.media.put_bytes(base64.b64decode(url.partition(";base64,")[2])), view)

    def view(self, handle: str, time_s: float) -> View:
        return View(handle, "video-1", "", time_s, Region(0, 0, 1280, 720))

    def play(self, reply: Reply, parses: bool) -> Play:
        message, usage = reply.message, reply.usage
        made = [self.call(call) for call in message.tool_calls]
        pieces = [delta(role="assistant")]
        if not parses:
            pieces.append(delta(content=self.say(message.raw or "")))
        else:
            inside = [message.reasoning, *([] if self.closes else [message.text])]
            pieces += [delta(reasoning_content=text) for text in inside if text]
            pieces += [delta(content=self.say(message.text))] if message.text and self.closes else []
            calls = [
                {"index": at, "id": f"x{at}", "type": "function",
                 "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments))}}
                for at, call in enumerate(made)
            ]  # fmt: skip
            pieces += [delta(tool_calls=calls)] if calls else []
        finish = reply.finish if parses or reply.finish != "tool_calls" else "stop"
        return Play(pieces=(*pieces, delta(finish), counts(usage.input_tokens, usage.output_tokens), event("[DONE]")))


@contextmanager
def served(backend: LocalBackend, scratch: Path, *, own: bool = False, **breaking: Any) -> Iterator[LoopbackServer]:
    """The engine at an address while the block runs; ``breaking`` are fields of :class:`Engine`.

    With ``own`` it says of itself what keyeloop's plugin says: it takes clips whole and replies raw.
    """
    config = backend._model.config
    told = {"sparse": backend._sequence._mode == "sparse", "indexer": "exact", "topk": config.indexer.topk,
            "kernels": "reference", "rope_theta": config.rope_theta,
            "mrope_section": list(config.mrope_section), "clips": own, "raw_replies": own}  # fmt: skip
    engine = Engine(backend, MediaStore(scratch / "served"), **{"status": told, **breaking})
    facts = {"max_model_len": config.max_position_embeddings, "owned_by": "sglang" if own else "test"}
    with loopback(engine, models=(NAME,), **facts) as server:
        yield server
    engine.thread.shutdown()
