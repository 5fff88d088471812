"""Starts one SGLang server for a benchmark, waits for it, asks it in token ids, and ends its whole process group."""

from __future__ import annotations

import json
import os
import random
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from record import Record, gpus

from keyeloop.model_backend.sglang.serve.process import ServerProcess
from keyeloop.model_backend.sglang.serve.waiting import wait_ready

NO_KEY = "none"
ASK_S = 900.0
LAST_PLAIN_ID = 150000
"""Random prompts draw from below: no special token, whose numbers begin above."""
KINDS: Mapping[str, tuple[str, ...]] = {
    "keye": ("--disable-prefill-cuda-graph",),
    "flashinfer": ("--attention-backend", "flashinfer", "--disable-prefill-cuda-graph"),
    "triton": ("--attention-backend", "triton", "--disable-prefill-cuda-graph"),
}
"""Our plugin, and stock SGLang with a dense model of the same size on two of its attention backends."""
ON_CPU = ("--device", "cpu", "--sampling-backend", "pytorch", "--disable-overlap-schedule", "--dtype", "float32",
          "--max-total-tokens", "40000", "--mem-fraction-static", "0.3")  # fmt: skip
ON_GPU = ("--sampling-backend", "pytorch", "--mem-fraction-static", "0.85")


@dataclass(frozen=True)
class Asked:
    """One request: its tokens, when each arrived (seconds from sending), and what the server says of it."""

    ids: list[int]
    arrived_s: list[float]
    meta: Mapping[str, Any]

    @property
    def first_s(self) -> float:
        """Time to the first token."""
        return self.arrived_s[0]

    @property
    def token_ms(self) -> float:
        """Mean milliseconds of a token after the first."""
        return 1000.0 * (self.arrived_s[-1] - self.arrived_s[0]) / max(1, len(self.arrived_s) - 1)


class Serving:
    """A server that is up."""

    def __init__(self, url: str, start_s: float, log: Path) -> None:
        self.url, self.start_s, self.log = url, start_s, log
        self.http = httpx.Client(base_url=url, timeout=ASK_S, trust_env=False)

    def info(self) -> dict[str, Any]:
        """What the server says of its first scheduler; ``keyeloop`` is the plugin's part."""
        states: list[dict[str, Any]] = self.http.get("/server_info").raise_for_status().json()["internal_states"]
        return states[0]

    def forget(self) -> None:
        """Empty the radix cache, once nothing runs."""
        for _ in range(20):
            if self.http.post("/flush_cache").status_code == httpx.codes.OK:
                return
            time.sleep(0.25)
        raise SystemExit(f"{self.url}/flush_cache refuses; see {self.log}")

    def ask(self, ids: Sequence[int], tokens: int, *, tag: str | None = None, **body: Any) -> Mapping[str, Any]:
        """``meta_info`` and ``output_ids`` of a greedy reply, at once; its calls held to ``tag``, a structural tag."""
        sent = self._body(ids, tokens, body)
        if tag is not None:
            sent["sampling_params"] |= {"structural_tag": tag, "ignore_eos": False}
            sent["require_reasoning"] = True
        return dict(self.http.post("/generate", json=sent).raise_for_status().json())

    def stream(self, ids: Sequence[int], tokens: int, **body: Any) -> Asked:
        """A greedy reply, timed token by token."""
        began_s, last = time.monotonic(), dict[str, Any]()
        arrived_s: list[float] = []
        sent = {**self._body(ids, tokens, body), "stream": True}
        with self.http.stream("POST", "/generate", json=sent) as reply:
            for line in reply.iter_lines():
                if not line.startswith("data:") or line.endswith("[DONE]"):
                    continue
                last = json.loads(line.removeprefix("data:"))
                if "error" in last:
                    raise SystemExit(f"{self.url}: {last['error']}")
                new = int(last["meta_info"]["completion_tokens"]) - len(arrived_s)
                arrived_s += [time.monotonic() - began_s] * new
        return Asked(list(last.get("output_ids", [])), arrived_s, last["meta_info"])

    @staticmethod
    def _body(ids: Sequence[int], tokens: int, more: Mapping[str, Any]) -> dict[str, Any]:
        sampling = {"temperature": 0, "max_new_tokens": tokens, "ignore_eos": True}
        return {"input_ids": list(ids), "sampling_params": sampling, **more}


@contextmanager
def serving(
    kind: str, folder: Path, record: Record, log: Path, *, flags: Sequence[str] = (),
    environment: Mapping[str, str] | None = None, dummy: bool = True, cpu: bool = False, within_s: float = 420.0,
) -> Iterator[Serving]:  # fmt: skip
    """A server of one of :data:`KINDS` on ``folder`` for as long as the context lasts.

    ``dummy`` makes random weights on the device instead of reading files. BackendError with the end of its log when it
    does not come up.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "sglang.launch_server", "--model-path", str(folder), "--host", "127.0.0.1",
               "--port", str(port), "--enable-cache-report", *KINDS[kind], *(ON_CPU if cpu else ON_GPU)]  # fmt: skip
    command += [*(("--load-format", "dummy") if dummy else ()), *flags]
    added = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    added |= {"SGLANG_USE_CPU_ENGINE": "1"} if cpu else {}
    added |= {} if kind == "keye" else {"SGLANG_PLUGINS": "none"}  # stock means without ours
    began_s, told_s = time.monotonic(), [0.0]

    def progress(waited_s: float, doing: str) -> None:
        if waited_s - told_s[0] > 15:
            told_s[0] = waited_s
            record.say(f"starting {kind}: {doing[:150]}")

    record.say(" ".join(command))
    with ServerProcess(command, {**os.environ, **added, **(environment or {})}, log) as process:
        wait_ready(process, f"http://127.0.0.1:{port}", NO_KEY, progress, within_s=within_s)
        up = Serving(f"http://127.0.0.1:{port}", time.monotonic() - began_s, log)
        record.say(f"{kind} is up after {up.start_s:.0f} s; GPU memory used {gpus('memory.used')} MiB")
        try:
            yield up
        finally:
            up.http.close()


def random_ids(tokens: int, seed: int, vocabulary: int = LAST_PLAIN_ID) -> list[int]:
    """A prompt of random tokens, none of them special."""
    choose = random.Random(seed)
    return [choose.randrange(vocabulary) for _ in range(tokens)]
