"""A Keye model behind SGLang's own interface."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from keyeloop.model_backend.base import Capabilities, Delta, Reply, Request
from keyeloop.model_backend.forbidding import require_requests_allowed
from keyeloop.model_backend.keye.config import KeyeConfig
from keyeloop.model_backend.keye.cost import KeyeVisualCost
from keyeloop.model_backend.keye.tokenizer import KeyeTokenizer
from keyeloop.model_backend.local.counter import limits_of
from keyeloop.model_backend.local.vocabulary import Vocabulary
from keyeloop.model_backend.served.asked_once import AskedOnce
from keyeloop.model_backend.served.failures import Refused
from keyeloop.model_backend.served.pictures import INLINE_PICTURES
from keyeloop.model_backend.served.sending import TRIES, Sender, Timeouts, given_key
from keyeloop.model_backend.sglang.native.address import parse_native
from keyeloop.model_backend.sglang.native.assembling import KIND, NativeAssembly, Words
from keyeloop.model_backend.sglang.native.body import body
from keyeloop.model_backend.sglang.native.facts import Facts, ask, tokenizer_folder
from keyeloop.model_backend.sglang.native.holding import HeldCalls
from keyeloop.model_backend.sglang.native.naming import PictureNames
from keyeloop.model_backend.sglang.native.prompt import NativePrompts
from keyeloop.runtime.content import Usage
from keyeloop.runtime.errors import BackendError
from keyeloop.runtime.media import MediaStore

GENERATE = "/generate"


@dataclass(frozen=True)
class Reading:
    """What the small files of a checkpoint give: its sizes, the layout of prompts, the meaning of tokens."""

    config: KeyeConfig
    prompts: NativePrompts
    words: Words

    @staticmethod
    def of(folder: Path) -> Reading:
        """Read ``config.json`` and ``tokenizer.json``.

        Raises InputError and ConfigError for the first, CheckpointError for the second.
        """
        tokenizer = KeyeTokenizer(folder / "tokenizer.json")
        words = Words.of(tokenizer, Vocabulary.read(folder / "tokenizer.json"))
        return Reading(KeyeConfig.from_folder(folder), NativePrompts(tokenizer), words)


@dataclass(frozen=True)
class _Model:
    facts: Facts
    capabilities: Capabilities
    reading: Reading
    names: PictureNames


class SGLangNative:
    """Asks a Keye model that SGLang serves, named as ``sglang://host:port#name``, in the very tokens of this project.

    Template, layout and tokenizer are the local ones, so a request is counted exactly, a clip keeps its own layout, a
    reply goes back in the tokens it was drawn in, and every reply tells its tokens and their logprobs. A request is
    tried again until the first token has come; never after. Cancelling closes the connection, which ends the work at
    the server.
    """

    def __init__(
        self,
        address: str,
        *,
        api_key: str | None = None,
        context_tokens: int | None = None,
        media_store: Path | None = None,
        timeouts: Timeouts | None = None,
        tries: int = TRIES,
        hold_calls: bool = True,
    ) -> None:
        """Nothing is sent yet.

        The name in the address is ``keye-tiny`` or the folder of the checkpoint (``config.json`` and
        ``tokenizer.json`` are read); without it, the folder that a server on this machine names. ``api_key`` defaults
        to ``KEYELOOP_API_KEY``. ``context_tokens`` lowers what the server says it takes. ``media_store`` is a folder
        that the server reads pictures from: they then travel as references (a server on this machine names its own).
        ``hold_calls``: calls are drawn under their tool's schema, and the logprobs of their tokens are those under it.
        InputError for a bad address.
        """
        self.address = parse_native(address)
        self._sender = Sender(
            self.address.base,
            given_key(api_key),
            timeouts or Timeouts(),
            tries,
            loopback=self.address.loopback,
            kind=KIND,
        )
        self._context_tokens, self._media_store = context_tokens, media_store
        self._held = HeldCalls(hold_calls)
        self._model = AskedOnce(self._meet)
        self._reading: Reading | None = None

    @property
    def secrets(self) -> tuple[str, ...]:
        """Its key: no record holds it."""
        return self._sender.secrets

    def capabilities(self) -> Capabilities:
        """Native clips, pictures inside tool turns. The first call asks the server, and blocks."""
        return self._model.answer().capabilities

    def count_tokens(self, request: Request) -> Usage:
        """Exact tokens of a request; a server is asked only where the address names no model."""
        return self.reading.prompts.build(request).usage

    @property
    def reading(self) -> Reading:
        """Tokenizer and layout; a server is asked only where the address names no model, and then this blocks."""
        return self._read() if self.address.name else self._model.answer().reading

    async def generate(
        self, request: Request, media: MediaStore, on_delta: Callable[[Delta], None] | None = None
    ) -> Reply:
        """Ask for one turn.

        Raises ContextOverflow when the server says that the request is too long, BackendError when it cannot be
        reached, refuses, breaks off, takes too long, or reads the request in other tokens than were sent.
        """
        started = time.monotonic()
        require_requests_allowed(str(self.address))
        model = await self._model.wait()
        words, prompts = model.reading.words, model.reading.prompts
        prompt = prompts.build(request)
        write = partial(body, request, prompt, model.names, media, words, new_tokens_only=model.facts.new_tokens_only)

        async def answered(tag: str | None) -> NativeAssembly:
            inline = model.names.missing(prompt.pictures) <= INLINE_PICTURES
            sent = write(tag=tag) if inline else await asyncio.to_thread(write, tag=tag)
            return await self._sender.post(
                GENERATE, sent, lambda: NativeAssembly(self._sender.where, started, prompt, words, on_delta)
            )

        tag = self._held.tag(request.tools) if request.allow_calls and model.facts.grammars else None
        try:
            assembly = await answered(tag)
        except Refused as error:
            if not self._held.refused(tag, error):
                raise
            assembly = await answered(None)  # a schema that its grammars cannot hold: the call is checked when it comes
        if not assembly.complete:
            raise BackendError(f"{self._sender.where} ended its stream in the middle of the reply")
        reply = assembly.reply()
        prompts.remember(*assembly.spoken)
        return reply

    async def close(self) -> None:
        """Drop the encoded pictures and this event loop's connections; idempotent."""
        if self._model.known is not None:
            self._model.known.names.clear()
        await self._sender.close()

    def _read(self, model_path: str = "") -> Reading:
        if self._reading is None:
            self._reading = Reading.of(tokenizer_folder(self.address, model_path))
        return self._reading

    async def _meet(self) -> _Model:
        require_requests_allowed(str(self.address))
        facts = await ask(self._sender, self.address)
        reading = self._read(facts.model_path)
        limits = [self._context_tokens, facts.context_tokens, reading.config.max_position_embeddings]
        capabilities = Capabilities(
            model=f"{self.address.shown}#{self.address.name or facts.model_path}",
            context_tokens=min(limit for limit in limits if limit is not None),
            cost=KeyeVisualCost(limits_of(reading.config)),
            native_video=True,
            tool_images=True,
            constrained_calls=self._held.holds and facts.grammars,
        )
        return _Model(facts, capabilities, reading, PictureNames(self._media_store or facts.media_store))
