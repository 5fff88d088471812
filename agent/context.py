"""What goes in the next request: the whole history, until it no longer fits; then the oldest pictures become stubs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from keyeloop.model_backend.base import ModelBackend, Request, Sampling
from keyeloop.runtime.content import Message, Part, Text, ToolSpec, Usage, images_of

KEPT_SHARE = 0.5
"""An edit throws away a served prefix, so it frees room for many turns: pictures go until this share of the context
is taken."""
MIN_REPLY_TOKENS = 32
"""Less room than this is not worth a request."""


@dataclass(frozen=True)
class Edit:
    """Pictures of one message part that were replaced by a text stub."""

    message: int
    """Index in the history."""
    part: int
    handles: tuple[str, ...]
    stub: str
    freed_tokens: int
    visual_tokens: int
    """Of those before the stub took some: picture tokens."""


class Context:
    """The history of one run. Requests only append to it, but for the edits that :meth:`fit` returns."""

    def __init__(
        self, backend: ModelBackend, tools: Sequence[ToolSpec], sampling: Sampling, opening: Sequence[Message]
    ) -> None:
        self.messages: list[Message] = list(opening)
        """Read them; change them through :meth:`append` and :meth:`fit` only."""
        self._backend = backend
        self._tools = tuple(tools)
        self._sampling = sampling
        self._opening = len(opening)
        self._room = backend.capabilities().context_tokens
        self._counted: Usage | None = None

    def append(self, *messages: Message) -> None:
        """Add turns."""
        self.messages.extend(messages)
        self._counted = None

    def request(self, *, allow_calls: bool = True) -> tuple[Request, Usage]:
        """The next request and its exact size; its reply is held to what the context has left."""
        request = Request(tuple(self.messages), self._tools, self._sampling, allow_calls)
        size = self._size()
        left = self._room - size.input_tokens
        if left < self._sampling.max_tokens:
            request = replace(request, sampling=replace(self._sampling, max_tokens=max(1, left)))
        return request, size

    def input_tokens(self) -> int:
        """Tokens of the next request as it stands."""
        return self._count()

    def left_tokens(self) -> int:
        """Tokens that input may still take, with a whole reply set aside."""
        return self._room - self._sampling.max_tokens - self._count()

    def has_room(self) -> bool:
        """Whether any reply fits behind the history."""
        return self._room - self._count() >= MIN_REPLY_TOKENS

    def visual_budget(self, calls: int) -> int:
        """Picture tokens that each of ``calls`` results may add: a third of the context, shared."""
        return max(0, (self._room - self._sampling.max_tokens) // 3) // max(1, calls)

    def fit(self) -> tuple[Edit, ...]:
        """Make room for a whole reply, in one batch, oldest pictures first.

        What the model has not seen yet, because it came after its last turn, goes only when nothing else is left and
        only as far as it must. The opening (system, task) is never touched.
        """
        if self.left_tokens() >= 0:
            return ()
        keep = int((self._room - self._sampling.max_tokens) * KEPT_SHARE)
        return self._free(keep, self._room - self._sampling.max_tokens)

    def halve(self) -> tuple[Edit, ...]:
        """Free half of what the context holds, for a model that found it too long though it was counted as fitting.

        What the model has not seen yet goes one picture at a time, and only where there is nothing else.
        """
        count = self._count()
        return self._free(count // 2, count - 1)

    def _free(self, keep: int, needed: int) -> tuple[Edit, ...]:
        """Evict seen pictures down to ``keep`` tokens, then unseen ones down to ``needed``."""
        edits: list[Edit] = []
        fresh = self._first_fresh()
        for position in list(self._pictures(self._opening, fresh)):
            edits.append(self._evict(*position))
            if self._count() <= keep:
                return tuple(edits)
        for position in list(self._pictures(fresh, len(self.messages))):
            if self._count() <= needed:
                break
            edits.append(self._evict(*position))
        return tuple(edits)

    def _size(self) -> Usage:
        if self._counted is None:
            self._counted = self._backend.count_tokens(Request(tuple(self.messages), self._tools, self._sampling))
        return self._counted

    def _count(self) -> int:
        return self._size().input_tokens

    def _first_fresh(self) -> int:
        spoken = [index for index, message in enumerate(self.messages) if message.role == "assistant"]
        return max(self._opening, spoken[-1] + 1 if spoken else 0)

    def _pictures(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        for index in range(start, stop):
            for place, part in enumerate(self.messages[index].parts):
                if not isinstance(part, Text):
                    yield index, place

    def _evict(self, index: int, place: int) -> Edit:
        message, before = self.messages[index], self._size()
        part = message.parts[place]
        stub = stub_text(part)
        parts = (*message.parts[:place], Text(stub), *message.parts[place + 1 :])
        self.messages[index] = replace(message, parts=parts)
        self._counted = None
        handles = tuple(view.handle for image in images_of(part) for view in image.views)
        after = self._size()
        freed, visual = before.input_tokens - after.input_tokens, before.visual_tokens - after.visual_tokens
        return Edit(index, place, handles, stub, freed, visual)


def stub_text(part: Part) -> str:
    """The words that stand for removed pictures and keep their address."""
    images = images_of(part)
    views = [view for image in images for view in image.views]
    if not views:
        return f"{len(images)} pictures were removed" if len(images) > 1 else "a picture was removed"
    shown = ", ".join(view.handle if view.time_s is None else f"{view.handle} at {view.time_s:.1f} s" for view in views)
    again = "zoom" if views[0].parent is not None or views[0].time_s is None else "clip_video"
    verb, them = ("were", "them") if len(views) > 1 else ("was", "it")
    return f"{shown} of {views[0].source} {verb} removed; {again} can show {them} again"
