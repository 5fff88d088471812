"""What a server counts for requests whose size we know: whether tools, pictures and videos reach the model as laid out.

One output token each. Pictures and videos are judged by what they add to the same request without them, so that a
template with other words does not hide their layout. A server of our own lays requests out with our template: that its
counts are right says nothing of the template that came with the checkpoint, so they settle nothing there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import cv2
import numpy as np

from keyeloop.agent.verification.board import ProbeVideo
from keyeloop.model_backend.base import Capabilities, ModelBackend, Request, Sampling
from keyeloop.model_backend.keye.template import Picture, render
from keyeloop.model_backend.keye.tokenizer import KeyeTokenizer
from keyeloop.model_backend.verification.chat_template import HISTORY, TOOL
from keyeloop.model_backend.verification.finding import Finding, judged
from keyeloop.runtime.content import Image, Message, ToolSpec, Video
from keyeloop.runtime.errors import BackendError
from keyeloop.runtime.evidence import Region, View
from keyeloop.runtime.media import MediaStore

TEMPLATE = "model_backend/keye/template.py"
LEAST_TOOL_TOKENS = 10
FRAMES_S = (1.0, 4.0, 12.5)
SOURCE = "our template, in the checkpoint's own tokens"


@dataclass(frozen=True)
class Counted:
    """What the server counted, or why it did not."""

    tokens: int | None
    problem: str = ""


class Counter:
    """Asks one server, of which nothing is taken for granted; ``tokenizer`` is its checkpoint's, where there is one."""

    def __init__(self, backend: ModelBackend, media: MediaStore, tokenizer: KeyeTokenizer | None) -> None:
        self._backend, self._media = backend, media
        self._tokenizer = tokenizer
        self.capabilities: Capabilities = backend.capabilities()

    async def findings(self, video: ProbeVideo) -> AsyncIterator[Finding]:
        """All that counts show, ``tools-live`` first. A request that the server refuses is a finding, not an error."""
        question = HISTORY[1]
        bare = await self._count((question,))
        told = await self._count((question,), (TOOL,))
        tools = _tools(bare, told, self._settled("template-tools"))
        yield tools
        turns = HISTORY[:4]
        if tools.state == "different":
            told = answered = Counted(None, "not compared: tools are dropped")
        else:
            answered = await self._count(turns, (TOOL,))
        yield self._exact("template-live", "a question with a tool", told, HISTORY[1:2], (TOOL,))
        yield self._exact("history-live", "a call, its thinking and its result", answered, turns, (TOOL,))
        image = self._picture(video, 4.0)
        yield self._added("image-live", "a picture in a user turn", bare, await self._count(_with(question, image)),
                          2 + _size(image))  # fmt: skip
        yield await self._tool_picture(turns, answered, image)
        yield await self._video(video, question, bare)

    async def _tool_picture(self, turns: tuple[Message, ...], words: Counted, image: Image) -> Finding:
        if words.tokens is None:
            words = await self._count(turns, (TOOL,))
        seen = await self._count((*turns[:3], *_with(turns[3], image)), (TOOL,))
        return self._added("tool-picture-live", "a picture in a tool turn", words, seen, 2 + _size(image),
                           settles=self._settled("template-tool-pictures"))  # fmt: skip

    async def _video(self, video: ProbeVideo, question: Message, bare: Counted) -> Finding:
        frames = tuple(self._picture(video, at, number) for number, at in enumerate(FRAMES_S, 1))
        wanted = 2 + sum(1 + len(f"{at:.1f}") + _size(frame) for at, frame in zip(FRAMES_S, frames, strict=True))
        if not self.capabilities.native_video:
            return judged("video-live", None, None, expected=f"{len(frames)} frames add {wanted} tokens",
                          found="clips go to this server as single pictures", source=SOURCE,
                          change=TEMPLATE)  # fmt: skip
        shown = await self._count(_with(question, Video(frames)))
        return self._added("video-live", f"a video of {len(frames)} frames", bare, shown, wanted)

    def _settled(self, *keys: str) -> tuple[str, ...]:
        return () if self.capabilities.native_video else keys

    def _exact(
        self, key: str, what: str, counted: Counted, messages: tuple[Message, ...], tools: tuple[ToolSpec, ...]
    ) -> Finding:
        if self._tokenizer is None:
            return judged(key, None, None, expected=what, found="needs the checkpoint's tokenizer: name its folder too",
                          source=SOURCE, change=TEMPLATE)  # fmt: skip
        wanted = {self._pieces(messages, tools), self._whole(messages, tools)}
        holds = None if counted.tokens is None else counted.tokens in wanted
        expected = " or ".join(map(str, sorted(wanted)))
        return judged(key, None, holds, expected=f"{what}: {expected} tokens", source=SOURCE, change=TEMPLATE,
                      found=counted.problem or f"{counted.tokens} tokens")  # fmt: skip

    def _pieces(self, messages: tuple[Message, ...], tools: tuple[ToolSpec, ...]) -> int:
        """As our own server encodes; see :meth:`keyeloop.model_backend.keye.tokenizer.KeyeTokenizer.lay_out`."""
        assert self._tokenizer is not None
        return len(self._tokenizer.lay_out(render(messages, tools)).ids)

    def _whole(self, messages: tuple[Message, ...], tools: tuple[ToolSpec, ...]) -> int:
        """As other servers encode: all text at once, replies as well."""
        assert self._tokenizer is not None
        texts = [chunk.text for chunk in render(messages, tools) if not isinstance(chunk, Picture)]
        return len(self._tokenizer.encode("".join(texts), special=True))

    def _added(
        self, key: str, what: str, before: Counted, after: Counted, wanted: int, settles: tuple[str, ...] = ()
    ) -> Finding:
        """A refused request differs."""
        added = None if before.tokens is None or after.tokens is None else after.tokens - before.tokens
        found = f"{added} tokens" if added is not None else f"not taken: {after.problem or before.problem}"
        holds = added == wanted if added is not None else None if before.problem else False
        return judged(key, None, holds, expected=f"{what} adds {wanted} tokens", found=found, source=SOURCE,
                      change=TEMPLATE, settles=settles)  # fmt: skip

    async def _count(self, messages: tuple[Message, ...], tools: tuple[ToolSpec, ...] = ()) -> Counted:
        try:
            reply = await self._backend.generate(Request(messages, tools, Sampling(max_tokens=1)), self._media)
        except BackendError as error:
            return Counted(None, str(error)[:160])
        return Counted(reply.usage.input_tokens)

    def _picture(self, video: ProbeVideo, time_s: float, number: int = 1) -> Image:
        """A frame in a size that the model takes as it is."""
        pixels = video.frame(time_s)
        height, width = pixels.shape[:2]
        size = self.capabilities.cost.image(width, height)
        shrunk = np.asarray(cv2.resize(pixels, (size.width, size.height), interpolation=cv2.INTER_AREA), np.uint8)
        view = View(f"f{number}", "video-1", "", time_s, Region(0, 0, width, height))
        return Image(self._media.put_image(shrunk), view)


def _tools(bare: Counted, told: Counted, settles: tuple[str, ...]) -> Finding:
    holds: bool | None = None
    found = told.problem or bare.problem
    if bare.tokens is not None and told.tokens is not None:
        added = told.tokens - bare.tokens
        holds = added >= LEAST_TOOL_TOKENS
        found = f"a tool adds {added} tokens" if holds else f"a tool adds {added} tokens: the template drops it"
    elif told.problem and not bare.problem:
        holds = False
    return judged("tools-live", None, holds, expected=f"a tool adds {LEAST_TOOL_TOKENS} tokens or more",
                  found=found, source="a tool has to be read to be called", change=TEMPLATE,
                  settles=settles)  # fmt: skip


def _with(message: Message, part: Image | Video) -> tuple[Message, ...]:
    return (Message(message.role, (*message.parts, part), tool_call_id=message.tool_call_id),)


def _size(image: Image) -> int:
    return image.media.width * image.media.height // (28 * 28)
