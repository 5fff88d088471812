"""A model behind an OpenAI-compatible chat endpoint."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from keyeloop.model_backend.base import Capabilities, Delta, Reply, Request
from keyeloop.model_backend.forbidding import require_requests_allowed
from keyeloop.model_backend.keye.cost import KEYE_2_LIMITS, KEYE_TINY_LIMITS, KeyeVisualCost
from keyeloop.model_backend.openai_chat.address import Address, parse_address
from keyeloop.model_backend.openai_chat.assembling import Assembly
from keyeloop.model_backend.openai_chat.counting import TokenEstimate
from keyeloop.model_backend.openai_chat.hermes import in_words
from keyeloop.model_backend.openai_chat.messages import PATH, CallForm, Form, PicturePlace
from keyeloop.model_backend.openai_chat.own_server import exact_count
from keyeloop.model_backend.openai_chat.probing import Facts, ask, named
from keyeloop.model_backend.openai_chat.writing import RequestWriter
from keyeloop.model_backend.scripted import PatchCost
from keyeloop.model_backend.served.asked_once import AskedOnce
from keyeloop.model_backend.served.pictures import INLINE_PICTURES
from keyeloop.model_backend.served.sending import KEY_VARIABLE as KEY_VARIABLE
from keyeloop.model_backend.served.sending import TRIES, Sender, Timeouts, given_key
from keyeloop.model_backend.sglang.native.naming import PictureNames
from keyeloop.runtime.content import Usage, images_of
from keyeloop.runtime.errors import BackendError
from keyeloop.runtime.media import MediaStore
from keyeloop.runtime.visual_cost import VisualCost


def visual_cost(name: str) -> VisualCost:
    """The picture arithmetic of a served model, by its name: Keye's own, else squares of 28 pixels."""
    low = name.lower()
    if "keye" not in low:
        return PatchCost()
    return KeyeVisualCost(KEYE_TINY_LIMITS if "keye-tiny" in low else KEYE_2_LIMITS)


@dataclass(frozen=True)
class _Model:
    facts: Facts
    capabilities: Capabilities
    estimate: TokenEstimate
    names: PictureNames


class OpenAIChat:
    """Asks a served model, named as ``http://host:port/v1#name``; many requests at a time, from any event loop.

    The server's own tool calls and thinking are used where it parses them; Hermes calls and ``<think>`` left in its
    text are parsed here. A request is tried again, with growing pauses or as long as ``Retry-After`` asks, until the
    first piece of a reply has come; never after. Cancelling closes the connection, which ends the work at the server.

    A server that runs keyeloop's plugin is sent clips as one part and gets replies back as the model wrote them.
    Where it reads a media store on this machine, a picture is put there once, then named by its sha256.
    """

    def __init__(
        self,
        address: str,
        *,
        api_key: str | None = None,
        context_tokens: int | None = None,
        pictures: PicturePlace | None = None,
        call_form: CallForm | None = None,
        cost: VisualCost | None = None,
        timeouts: Timeouts | None = None,
        tries: int = TRIES,
        try_out: bool = True,
    ) -> None:
        """Nothing is sent yet. What is left out is asked of the server before the first request.

        ``api_key`` defaults to ``KEYELOOP_API_KEY``. ``context_tokens`` is what the server takes (else what it lists,
        else 32,768). ``pictures`` says where a tool's pictures stand: ``tool``, ``user``, or ``omit`` for a model that
        sees nothing and is told only their addresses. ``call_form`` says how calls travel: ``native``, or ``text`` in
        Hermes' words where the server or its template would drop them. ``cost`` is the picture arithmetic (see
        :func:`visual_cost`). Without ``try_out`` the server is asked what it says of itself and is sent no trial
        request: pictures then count as seen, in user turns. InputError for a bad address.
        """
        self.address: Address = parse_address(address)
        self._sender = Sender(
            self.address.base,
            given_key(api_key),
            timeouts or Timeouts(),
            tries,
            loopback=self.address.loopback,
        )
        self._context_tokens, self._pictures, self._call_form = context_tokens, pictures, call_form
        self._cost, self._try_out = cost, try_out
        self._writer = RequestWriter()
        self._model = AskedOnce(self._meet)
        self._listed = AskedOnce(lambda: named(self._sender, self.address))
        self._reasoning_field: str | None = None
        self._opens_thinking = False

    @property
    def secrets(self) -> tuple[str, ...]:
        """Its key: no record holds it."""
        return self._sender.secrets

    def capabilities(self) -> Capabilities:
        """What the server says of its model; the first call asks it, and blocks. See :mod:`.probing`."""
        return self._model.answer().capabilities

    def count_tokens(self, request: Request) -> Usage:
        """An estimate, held to what the server counted for earlier turns. See :mod:`.counting`."""
        return self._model.answer().estimate.count(request)

    async def generate(
        self, request: Request, media: MediaStore, on_delta: Callable[[Delta], None] | None = None
    ) -> Reply:
        """Ask for one turn.

        Raises InputError for a ``#name`` that the server does not list, ContextOverflow when it says that the request
        is too long, BackendError when it cannot be reached, refuses, breaks off, takes too long, or was sent pictures
        that it cannot take.
        """
        started = time.monotonic()
        require_requests_allowed(str(self.address))
        known = await self._model.wait()
        if not known.facts.listed:
            await self._listed.wait()
        facts, where = known.facts, self._sender.where
        place = facts.pictures
        pictures = [image.media for message in request.messages for part in message.parts for image in images_of(part)]
        if place is None:
            place = "omit"
            if pictures:
                raise BackendError(
                    f"{where}#{facts.name} takes no pictures: name a model that sees (llama.cpp: start it with "
                    "--mmproj), or set pictures to 'omit' to go on with their addresses only"
                )
        own, in_text = facts.own is not None, facts.calls == "text"
        write = partial(
            self._writer.body,
            in_words(request) if in_text else request,
            facts.name,
            Form(place, None if own else self._reasoning_field, own),
            known.names,
            media,
            keep=not in_text,
        )
        sent = await asyncio.to_thread(write) if known.names.missing(pictures) > INLINE_PICTURES else write()
        opened = own or self._opens_thinking
        assembly = await self._sender.post(PATH, sent, lambda: Assembly(where, started, on_delta, opened, surely=own))
        self._reasoning_field = assembly.reasoning_field or self._reasoning_field
        self._opens_thinking = assembly.thought_in_content
        if assembly.prompt_tokens is not None:
            known.estimate.calibrate(request, assembly.prompt_tokens)
        return assembly.reply(known.estimate.count(request))

    async def close(self) -> None:
        """Drop the encoded pictures and this event loop's connections; idempotent."""
        self._writer.clear()
        if self._model.known is not None:
            self._model.known.names.clear()
        await self._sender.close()

    async def _meet(self) -> _Model:
        require_requests_allowed(str(self.address))
        facts = await ask(
            self._sender, self.address, self._context_tokens, self._pictures, self._call_form, try_out=self._try_out
        )
        own = facts.own
        limits = own.limits if own is not None else None
        cost = self._cost or (visual_cost(facts.name) if limits is None else KeyeVisualCost(limits))
        capabilities = Capabilities(
            model=f"{self._sender.where}#{facts.name}",
            context_tokens=facts.context_tokens,
            cost=cost,
            native_video=own is not None,
            tool_images=facts.pictures == "tool",
        )
        exact = (
            exact_count(own.folder) if own is not None and own.folder is not None and self.address.loopback else None
        )
        estimate = TokenEstimate(cost, pictures_sent=facts.pictures != "omit", final=own is not None, exact=exact)
        shared = own.media_store if own is not None and self.address.loopback else None
        return _Model(facts, capabilities, estimate, PictureNames(shared))
