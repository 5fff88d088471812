"""The model of a question that is played again: recorded replies first, then who thinks on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from keyeloop.agent.asking import OutOfSeconds
from keyeloop.agent.replaying.tape import Tape
from keyeloop.model_backend.base import Capabilities, Delta, ModelBackend, Reply, Request
from keyeloop.model_backend.scripted import deltas
from keyeloop.runtime.content import Usage
from keyeloop.runtime.errors import ContextOverflow
from keyeloop.runtime.events import Noticed
from keyeloop.runtime.media import MediaStore

TOO_LONG = "the model's context is full: "
"""Before what a server said of a request that was too long, in the notice of it."""


class TapedModel:
    """Gives recorded replies as long as there are any; ``settle`` is awaited before ``live`` is asked."""

    def __init__(self, tape: Tape, live: ModelBackend, settle: Callable[[], Awaitable[None]]) -> None:
        self._tape, self._live, self._settle = tape, live, settle

    def capabilities(self) -> Capabilities:
        """Those of the live model."""
        return self._live.capabilities()

    def count_tokens(self, request: Request) -> Usage:
        """As the live model counts."""
        return self._live.count_tokens(request)

    async def generate(
        self, request: Request, media: MediaStore, on_delta: Callable[[Delta], None] | None = None
    ) -> Reply:
        """The recorded reply, the recorded failure, or a new reply."""
        if not self._tape.left:
            await self._settle()
            return await self._live.generate(request, media, on_delta)
        reply = self._tape.reply()
        if reply is None:
            event = self._tape.upcoming
            if isinstance(event, Noticed) and event.code == "seconds":
                raise OutOfSeconds
            raise ContextOverflow(event.text.removeprefix(TOO_LONG) if isinstance(event, Noticed) else "as recorded")
        if on_delta is not None:
            for delta in deltas(reply.message):
                on_delta(delta)
        return reply

    async def close(self) -> None:
        """Whoever opened the live model closes it."""
