"""How many tokens a request has, estimated, and held to what the server itself counted before.

The estimate is a token for every digit, other bytes over :data:`BYTES_A_TOKEN`, some tokens a turn, and the model's
picture arithmetic. Each reply calibrates it: a request without pictures sets the scale of text, one with pictures that
of pictures, and what is still missing is kept for each task as an offset. So for the part of a history that the server
has already read the count is the server's own, and only what came since is estimated. Within one calibration a longer
history never counts less. Where the tokenizer of keyeloop's own server is on this machine, it counts instead.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from keyeloop.model_backend.base import Request
from keyeloop.model_backend.keye.sizing import PIXELS_PER_TOKEN
from keyeloop.model_backend.openai_chat.messages import tool_form
from keyeloop.model_backend.served.remembered import Remembered
from keyeloop.runtime.content import Image, Message, ToolSpec, Usage, images_of
from keyeloop.runtime.errors import BackendError
from keyeloop.runtime.visual_cost import VisualCost

BYTES_A_TOKEN = 3.5
"""A little below English under common vocabularies; digits apart, most of which give each a token of its own."""
TURN_TOKENS = 6
"""Role, end marks, a tool's name and id."""
TOOLS_TOKENS = 110
"""What templates, and Hermes' words, say around the tools."""
NAME_TOKENS = 8
"""``f12 at 83.0 s:`` before a frame of a clip."""
SCALES = (0.25, 4.0)
"""Calibration stays between these."""
KEPT_TASKS = 256
KEPT_SIZES = 65_536
Task = tuple[tuple[str, ...], tuple[tuple[str, str], ...]]


@dataclass(frozen=True)
class _Size:
    text: float
    visual: float
    exact: bool = False
    """Counted by the served tokenizer: no scale changes it."""


class TokenEstimate:
    """Counts requests of one served model. Threads may share it."""

    def __init__(
        self,
        cost: VisualCost,
        *,
        pictures_sent: bool = True,
        final: bool = False,
        exact: Callable[[Request], Usage] | None = None,
    ) -> None:
        """Without ``pictures_sent`` they are words in their requests, and cost as much.

        ``final`` pictures are never resized by the server: their cost is known, and is not learnt. ``exact`` counts
        with the served tokenizer; BackendError from it, for a picture that the server will resize, leaves the request
        to the estimate.
        """
        self._cost, self._pictures_sent, self._final, self._exact = cost, pictures_sent, final, exact
        self._text_scale = self._visual_scale = 1.0
        self._offsets: OrderedDict[Task, float] = OrderedDict()
        self._sizes: Remembered[_Size] = Remembered(KEPT_SIZES)
        self._wholes: Remembered[_Size] = Remembered(KEPT_TASKS)
        self._lock = threading.Lock()

    def count(self, request: Request) -> Usage:
        """``input_tokens`` and ``visual_tokens`` of a request; the other fields are 0."""
        size = self._size(request)
        with self._lock:
            offset = self._offsets.get(_task(request), 0.0)
            scaled = self._scaled(size)
            visual = round(size.visual * (1.0 if size.exact else self._visual_scale))
        return Usage(input_tokens=max(1, visual, round(scaled + offset)), visual_tokens=visual)

    def calibrate(self, request: Request, prompt_tokens: int) -> None:
        """Learn from what the server counted for ``request``."""
        size = self._size(request)
        if prompt_tokens < 1:
            return
        with self._lock:
            if size.exact:
                pass
            elif not size.visual:
                self._text_scale = _bounded(prompt_tokens / max(1.0, size.text))
            elif not self._final:
                self._visual_scale = _bounded((prompt_tokens - size.text * self._text_scale) / size.visual)
            key = _task(request)
            self._offsets[key] = prompt_tokens - self._scaled(size)
            self._offsets.move_to_end(key)
            if len(self._offsets) > KEPT_TASKS:
                self._offsets.popitem(last=False)

    def _scaled(self, size: _Size) -> float:
        if size.exact:
            return size.text + size.visual
        return size.text * self._text_scale + size.visual * self._visual_scale

    def _size(self, request: Request) -> _Size:
        return self._wholes.get((request.messages, request.tools), lambda: self._sum(request))

    def _sum(self, request: Request) -> _Size:
        if self._exact is not None:
            try:
                counted = self._exact(request)
            except BackendError:
                return self._estimated(request)
            return _Size(float(counted.input_tokens - counted.visual_tokens), float(counted.visual_tokens), exact=True)
        return self._estimated(request)

    def _estimated(self, request: Request) -> _Size:
        text = self._sizes.get((request.tools,), lambda: _tools_size(request.tools)).text
        visual = 0.0
        for message in request.messages:
            size = self._sizes.get((message,), lambda: self._message_size(message))  # noqa: B023  called at once
            text, visual = text + size.text, visual + size.visual
        return _Size(text, visual)

    def _message_size(self, message: Message) -> _Size:
        images = [image for part in message.parts for image in images_of(part)]
        text = TURN_TOKENS + _tokens(_said(message)) + NAME_TOKENS * len(images)
        return _Size(text, float(sum(map(self._tokens_of, images))) if self._pictures_sent else 0.0)

    def _tokens_of(self, image: Image) -> int:
        media = image.media
        if self._final:
            return media.width * media.height // PIXELS_PER_TOKEN
        return self._cost.image(media.width, media.height).tokens


def _tools_size(tools: Sequence[ToolSpec]) -> _Size:
    said = sum(_tokens(json.dumps(tool_form(tool), default=str)) for tool in tools)
    return _Size(TOOLS_TOKENS + said if tools else 0.0, 0.0)


def _said(message: Message) -> str:
    calls = "".join(json.dumps([call.name, dict(call.arguments)], default=str) for call in message.tool_calls)
    return message.text + message.reasoning + calls


def _tokens(text: str) -> float:
    digits = sum(map(text.count, "0123456789"))
    return digits + (len(text.encode("utf-8", "replace")) - digits) / BYTES_A_TOKEN


def _bounded(scale: float) -> float:
    return min(max(scale, SCALES[0]), SCALES[1])


def _task(request: Request) -> Task:
    """Requests of one run begin alike: its tools, its system turn, its question."""
    return tuple(tool.name for tool in request.tools), tuple((one.role, one.text) for one in request.messages[:2])
