"""The embedded model on this machine: one request at a time, on the CPU or one GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from keyeloop.model_backend.base import Capabilities, Delta, Reply, Request
from keyeloop.model_backend.forbidding import require_requests_allowed
from keyeloop.model_backend.keye.cost import KeyeVisualCost
from keyeloop.model_backend.keye.decoder import AttentionMode
from keyeloop.model_backend.keye.model import KeyeModel
from keyeloop.model_backend.keye.tokenizer import KeyeTokenizer
from keyeloop.model_backend.keye.weights import load_folder
from keyeloop.model_backend.local.counter import limits_of as limits_of
from keyeloop.model_backend.local.decode import Decoder, assemble
from keyeloop.model_backend.local.folder import EMBEDDED_MODEL, model_folder
from keyeloop.model_backend.local.prompt import Prompt, PromptBuilder
from keyeloop.model_backend.local.rules import RuleBook
from keyeloop.model_backend.local.sampling import Sampler
from keyeloop.model_backend.local.sequence import CachedSequence
from keyeloop.model_backend.local.threads import cpu_threads
from keyeloop.model_backend.local.vocabulary import Vocabulary
from keyeloop.model_backend.local.worker import Job, Worker
from keyeloop.runtime.content import Usage
from keyeloop.runtime.errors import BackendError, CheckpointError, ConfigError
from keyeloop.runtime.media import MediaStore

LARGE_BYTES = 1 << 30
"""Weights of this size and more run in bfloat16 on a GPU, unless told otherwise."""
SMALL_PARAMETERS = 100_000_000
"""Below this a model runs on one CPU thread: its steps are too short to be worth sharing, and cores may be busy."""


class LocalBackend:
    """Answers requests with a Keye model in this process.

    The keys and values of the last sequence are kept: a request that begins like it, pictures included, costs only what
    is new. Tool calls are held to their tool's schema while they are decoded. Requests of several tasks wait for each
    other. A cancelled request stops within one token (within one chunk of the prompt while that is being read).
    """

    def __init__(
        self,
        name: str,
        model: KeyeModel,
        tokenizer_file: Path,
        cost: KeyeVisualCost,
        mode: AttentionMode = "sparse",
        threads: int | None = None,
    ) -> None:
        """``mode`` is ``sparse`` (the model), ``dense`` or ``random`` (ablations). See :meth:`load`.

        ``threads`` for the CPU: one for a small model and torch's own choice for others, unless given.
        """
        self._name, self._model = name, model.eval().requires_grad_(False)
        self._context_tokens = model.config.max_position_embeddings
        self._cost = cost
        tokenizer = KeyeTokenizer(tokenizer_file)
        self._prompts = PromptBuilder(tokenizer)
        vocabulary = Vocabulary.read(tokenizer_file)
        if len(vocabulary.tokens) > model.config.vocab_size:
            raise CheckpointError(
                f"{tokenizer_file}: {len(vocabulary.tokens)} tokens, but the model's vocab_size is "
                f"{model.config.vocab_size}; take both files from the same checkpoint"
            )
        try:
            self._book = RuleBook(vocabulary, tokenizer.encode_text, model.config.vocab_size)
        except ValueError:
            raise CheckpointError(f"{tokenizer_file}: lacks <|im_end|>, </think> or the <tool_call> tokens") from None
        small = sum(parameter.numel() for parameter in model.parameters()) < SMALL_PARAMETERS
        self._threads = threads or (1 if small else torch.get_num_threads())
        self._sequence = CachedSequence(model, mode)
        self._worker = Worker(name)

    @classmethod
    def load(
        cls,
        name_or_path: str | Path = "keye-tiny",
        *,
        device: str = "auto",
        dtype: torch.dtype | None = None,
        mode: AttentionMode = "sparse",
        threads: int | None = None,
    ) -> LocalBackend:
        """Load ``keye-tiny``, which comes with the package, or a checkpoint's folder.

        ``device`` ``auto`` takes the GPU where there is one. Raises InputError for a folder that holds no model,
        ConfigError for a device that is not there, CheckpointError for weights that do not fit.
        """
        folder = model_folder(name_or_path)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            place = torch.device(device)
        except RuntimeError:
            raise ConfigError(f"no device {device!r}; use auto, cpu or cuda") from None
        if place.type == "cuda" and not torch.cuda.is_available():
            raise ConfigError(f"device {device!r}: torch {torch.__version__} finds no GPU; use cpu or auto")
        if dtype is None:
            large = sum(file.stat().st_size for file in folder.glob("*.safetensors")) >= LARGE_BYTES
            dtype = torch.bfloat16 if large and place.type == "cuda" else torch.float32
        name = EMBEDDED_MODEL if name_or_path == EMBEDDED_MODEL else folder.resolve().name
        model = load_folder(folder, device=place, dtype=dtype)
        return cls(name, model, folder / "tokenizer.json", KeyeVisualCost(limits_of(model.config)), mode, threads)

    def capabilities(self) -> Capabilities:
        """Native clips, pictures inside tool turns, calls held to their schema."""
        return Capabilities(
            self._name, self._context_tokens, self._cost, native_video=True, tool_images=True, constrained_calls=True
        )

    def count_tokens(self, request: Request) -> Usage:
        """Exact tokens of a request. Raises BackendError for a picture that cannot be laid out."""
        return self._prompts.build(request).usage

    async def generate(
        self, request: Request, media: MediaStore, on_delta: Callable[[Delta], None] | None = None
    ) -> Reply:
        """Answer a request.

        Raises BackendError when it does not fit the context, a picture cannot be used or memory runs out.
        """
        require_requests_allowed(self._name)
        started = time.monotonic()
        try:
            return await self._worker.run(lambda job: self._answer(request, media, job, started), on_delta)
        except torch.OutOfMemoryError as problem:
            raise BackendError(
                f"{self._name} ran out of GPU memory: free some, shorten the request, or use device='cpu'"
            ) from problem

    def forget(self) -> None:
        """Drop the kept sequence, so that the next request is read whole; pictures stay encoded. For measurements.

        Not while a request is in progress.
        """
        self._sequence.forget()

    async def close(self) -> None:
        """Stop the request in progress and free what is kept; idempotent."""
        self._worker.close()
        self._sequence.forget(pictures=True)

    def _answer(self, request: Request, media: MediaStore, job: Job[Delta], started: float) -> Reply:
        prompt = self._prompts.build(request)
        limit = min(request.sampling.max_tokens, self._room(prompt))
        with torch.inference_mode(), cpu_threads(self._threads):
            logits, known = self._sequence.read(prompt, media, limit, job.check)
            rules = self._book.begin(request.tools if request.allow_calls else ())
            decoder = Decoder(self._book, rules, Sampler(request.sampling), job.emit)
            drawn = decoder.draw(self._sequence, logits, limit, job.check)
        self._prompts.remember(drawn.raw, drawn.ids)
        usage = replace(
            prompt.usage, cached_tokens=known, output_tokens=len(drawn.ids), reasoning_tokens=drawn.thinking_tokens
        )
        return assemble(drawn, request.messages, usage, drawn.first_token_at - started)

    def _room(self, prompt: Prompt) -> int:
        room = self._context_tokens - len(prompt.ids)
        if room < 1:
            raise BackendError(
                f"the request has {len(prompt.ids)} tokens, {self._name} reads at most {self._context_tokens}: "
                "look at fewer or smaller pictures, or shorten the question"
            )
        return room
