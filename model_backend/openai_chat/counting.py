"""How many tokens a request has, estimated, and held to what the server itself counted before.

The estimate is a token for every digit, other bytes over :data:`BYTES_A_TOKEN`, some tokens a turn, and the model's
picture arithmetic. Each reply calibrates it: a request without pictures sets the scale of text, one with pictures that
of pictures, and what is still missing is kept for each task as an offset. So for the part of a history that the server
has already read the count is the server's own, and only what came since is estimated. Within one calibration a longer
history never counts less.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from dataclasses import dataclass

from keyeloop.model_backend.base import Request
from keyeloop.model_backend.keye.sizing import PIXELS_PER_TOKEN
from keyeloop.model_backend.openai_chat.messages import tool_form
from keyeloop.runtime.content import Image, Message, Text, Usage
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


@dataclass(frozen=True)
class _Size:
    text: float
    visual: float


class TokenEstimate:
    """Counts requests of one served model. Threads may share it."""

    def __init__(self, cost: VisualCost, *, pictures_sent: bool = True, final: bool = False) -> None:
        """Without ``pictures_sent`` they are words in their requests, and cost as much.

        ``final`` pictures are never resized by the server: their cost is known, and is not learnt.
        """
        self._cost, self._pictures_sent, self._final = cost, pictures_sent, final
        self._text_scale = self._visual_scale = 1.0
        self._offsets: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def count(self, request: Request) -> Usage:
        """``input_tokens`` and ``visual_tokens`` of a request."""
        size = self._size(request)
        with self._lock:
            offset = self._offsets.get(_task(request), 0.0)
            scaled = self._scaled(size)
            visual = round(size.visual * self._visual_scale)
        return Usage(input_tokens=max(1, visual, round(scaled + offset)), visual_tokens=visual)

    def calibrate(self, request: Request, prompt_tokens: int) -> None:
        """Learn from what the server counted for ``request``."""
        size = self._size(request)
        if prompt_tokens < 1:
            return
        with self._lock:
            if not size.visual:
                self._text_scale = _bounded(prompt_tokens / max(1.0, size.text))
            elif not self._final:
                self._visual_scale = _bounded((prompt_tokens - size.text * self._text_scale) / size.visual)
            key = _task(request)
            self._offsets[key] = prompt_tokens - self._scaled(size)
            self._offsets.move_to_end(key)
            if len(self._offsets) > KEPT_TASKS:
                self._offsets.popitem(last=False)

    def _scaled(self, size: _Size) -> float:
        return size.text * self._text_scale + size.visual * self._visual_scale

    def _size(self, request: Request) -> _Size:
        text = float(TOOLS_TOKENS) if request.tools else 0.0
        text += sum(_tokens(json.dumps(tool_form(tool), default=str)) for tool in request.tools)
        visual = 0.0
        for message in request.messages:
            text += TURN_TOKENS + _tokens(_said(message))
            for part in message.parts:
                if isinstance(part, Text):
                    continue
                images = (part,) if isinstance(part, Image) else part.frames
                text += NAME_TOKENS * len(images)
                if self._pictures_sent:
                    visual += sum(self._tokens_of(image) for image in images)
        return _Size(text, visual)

    def _tokens_of(self, image: Image) -> int:
        media = image.media
        if self._final:
            return media.width * media.height // PIXELS_PER_TOKEN
        return self._cost.image(media.width, media.height).tokens


def _said(message: Message) -> str:
    calls = "".join(json.dumps([call.name, dict(call.arguments)], default=str) for call in message.tool_calls)
    return message.text + message.reasoning + calls


def _tokens(text: str) -> float:
    digits = sum(map(text.count, "0123456789"))
    return digits + (len(text.encode("utf-8", "replace")) - digits) / BYTES_A_TOKEN


def _bounded(scale: float) -> float:
    return min(max(scale, SCALES[0]), SCALES[1])


def _task(request: Request) -> str:
    """Requests of one run begin alike: its tools, its system turn, its question."""
    opening = [[message.role, message.text] for message in request.messages[:2]]
    names = [tool.name for tool in request.tools]
    return hashlib.sha256(json.dumps([names, opening]).encode()).hexdigest()
