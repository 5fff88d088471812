"""A real SGLang server on keye-tiny for a test session, and what tests ask it."""

from __future__ import annotations

import base64
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from keyeloop.model_backend.local.folder import EMBEDDED_MODEL, model_folder
from keyeloop.model_backend.sglang.serve.process import ServerProcess
from keyeloop.model_backend.sglang.wire import ClipFrame, clip_url
from keyeloop.runtime.content import Image, Video
from keyeloop.runtime.media import MediaStore
from tests.sglang.prompts import Prompt

CHUNK = 256
"""Tokens of one prefill chunk: prompts of the tests take several, with boundaries inside pictures."""
START_S = 500.0
PLUGIN_VARIABLES = ("SGLANG_PLUGINS", "SGLANG_EXTERNAL_MODEL_PACKAGE", "KEYELOOP_INDEXER")


@dataclass(frozen=True)
class Reply:
    """Tokens of one reply and what SGLang says of them."""

    ids: list[int]
    meta: Mapping[str, Any]

    @property
    def cached_tokens(self) -> int:
        return int(self.meta["cached_tokens"])


class Served:
    """A running server."""

    def __init__(self, url: str, store: MediaStore) -> None:
        self.url, self._store = url, store
        self.http = httpx.Client(base_url=url, timeout=120)

    def generate(self, prompt: Prompt, tokens: int, **options: Any) -> Reply:
        """Greedy tokens after a prompt."""
        sampling = {"temperature": 0, "max_new_tokens": tokens, "ignore_eos": True}
        answer = self.http.post("/generate", json={**self.body(prompt), "sampling_params": sampling, **options})
        answer.raise_for_status()
        told = answer.json()
        return Reply(list(told["output_ids"]), told["meta_info"])

    def distributions(self, prompt: Prompt, vocabulary: int) -> list[list[float]]:
        """Log-probabilities of every token of the vocabulary behind each place of a prompt but the last."""
        reply = self.generate(
            prompt, 1, return_logprob=True, logprob_start_len=0, token_ids_logprob=list(range(vocabulary))
        )
        rows = [row for row in reply.meta["input_token_ids_logprobs"] if row]
        rows += reply.meta["output_token_ids_logprobs"]
        return [[float(entry[0]) for entry in row] for row in rows]

    def body(self, prompt: Prompt) -> dict[str, Any]:
        """A request's prompt: token ids, pictures and clips by value."""
        body: dict[str, Any] = {"input_ids": prompt.ids}
        stills = [self._data(part) for part in prompt.media if isinstance(part, Image)]
        clips = [
            clip_url(
                ClipFrame(time_s, self._data(frame)) for frame, time_s in zip(part.frames, part.times_s, strict=True)
            )
            for part in prompt.media
            if isinstance(part, Video)
        ]
        return body | ({"image_data": stills} if stills else {}) | ({"video_data": clips} if clips else {})

    def forget(self) -> None:
        """Empty the radix cache."""
        self.http.post("/flush_cache").raise_for_status()

    def status(self) -> dict[str, Any]:
        """What the plugin says of itself."""
        told = self.http.get("/server_info").json()
        return dict(told["internal_states"][0]["keyeloop"])

    def _data(self, image: Image) -> str:
        return "data:image/jpeg;base64," + base64.b64encode(self._store.read(image.media.sha256)).decode()


def start(
    log: Path, flags: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> tuple[ServerProcess, str]:
    """Start a server on a free port of this machine; it is not up yet. Returns the process and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "sglang.launch_server", "--model-path", str(model_folder(EMBEDDED_MODEL)),
        "--device", "cpu", "--dtype", "float32", "--sampling-backend", "pytorch", "--disable-overlap-schedule",
        "--host", "127.0.0.1", "--port", str(port), "--max-total-tokens", "20000", "--max-running-requests", "16",
        "--mem-fraction-static", "0.3", "--chunked-prefill-size", str(CHUNK), "--enable-cache-report",
        "--sleep-on-idle", *flags,
    ]  # fmt: skip
    inherited = {name: value for name, value in os.environ.items() if name not in PLUGIN_VARIABLES}
    own = {"SGLANG_USE_CPU_ENGINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1",
           "HF_HUB_OFFLINE": "1"}  # fmt: skip
    return ServerProcess(command, {**inherited, **own, **(environment or {})}, log), f"http://127.0.0.1:{port}"


def wait_until_up(server: ServerProcess, url: str, key: str = "") -> None:
    """Return when the server answers to a key; AssertionError with the end of its log otherwise."""
    limit = time.monotonic() + START_S
    while time.monotonic() < limit:
        code = server.ended(0.5)
        assert code is None, f"the server ended with {code}:\n{server.log.read_text(errors='replace')[-6000:]}"
        try:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            if httpx.get(f"{url}/health_generate", headers=headers, timeout=20).status_code == 200:
                return
        except httpx.HTTPError:
            continue
    raise AssertionError(f"not up after {START_S:.0f} s:\n{server.log.read_text(errors='replace')[-6000:]}")
