"""The command that serves Keye, and the environment that it needs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from keyeloop.model_backend.sglang.plugin.media.store import STORE_VARIABLE
from keyeloop.model_backend.sglang.plugin.settings import INDEXER
from keyeloop.model_backend.sglang.serve.settings import ServeSettings
from keyeloop.model_backend.sglang.serve.versions import PLUGIN

AGENT_FLAGS = (
    "--tool-call-parser", "qwen25", "--reasoning-parser", "qwen3-thinking", "--enable-cache-report", "--sleep-on-idle",
    "--incremental-streaming-output",
)  # fmt: skip
"""Calls in Hermes' form, thinking that the template opens, cached tokens in every usage, no core taken while idle, each
event of a stream with its own tokens and not with all before it."""
GPU_FLAGS = ("--disable-prefill-cuda-graph",)
"""Decoding runs in CUDA graphs; those of prefill have no place for what the sparse backend is told."""
CPU_FLAGS = ("--dtype", "float32", "--sampling-backend", "pytorch", "--disable-overlap-schedule")


@dataclass(frozen=True)
class ServerCommand:
    """What is run: arguments, and what is added to the environment. Neither holds the key itself."""

    arguments: tuple[str, ...]
    added: Mapping[str, str]

    def environment(self, outer: Mapping[str, str]) -> dict[str, str]:
        """The server's whole environment: ours without keyeloop's settings and key, and with what is added."""
        kept = {name: value for name, value in outer.items() if not name.startswith("KEYELOOP_")}
        return {**kept, **self.added}

    def shell(self) -> str:
        """As one line that a shell runs."""
        return " ".join([*(f"{name}={shlex.quote(value)}" for name, value in self.added.items()),
                         shlex.join(self.arguments)])  # fmt: skip


def build_command(
    settings: ServeSettings,
    *,
    device: str,
    folder: str,
    name: str,
    context_tokens: int,
    cache_tokens: int | None,
    memory_fraction: float,
    picture_cache_mib: int,
    key_file: Path,
    outer: Mapping[str, str],
) -> ServerCommand:
    """The command for a folder. The key goes by ``--config``, a file for this user alone: arguments are public.

    ``cache_tokens`` is given where SGLang must not choose it by itself, as on a CPU.
    """
    arguments = [
        settings.python, "-m", "sglang.launch_server", "--model-path", folder, "--served-model-name", name,
        "--host", settings.host, "--port", str(settings.port), "--config", str(key_file),
        "--device", device, "--context-length", str(context_tokens),
        "--mem-fraction-static", f"{memory_fraction:.3f}", *AGENT_FLAGS,
    ]  # fmt: skip
    if cache_tokens is not None:
        arguments += ["--max-total-tokens", str(cache_tokens)]
    if settings.tensor_parallel > 1:
        arguments += ["--tp-size", str(settings.tensor_parallel)]
    if settings.quantization != "none":
        arguments += ["--quantization", settings.quantization]
    added = {
        "SGLANG_VLM_CACHE_SIZE_MB": str(picture_cache_mib),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        INDEXER: settings.index,
    }
    if settings.media_store is not None:
        added[STORE_VARIABLE] = str(settings.media_store.expanduser().resolve())
    allowed = outer.get("SGLANG_PLUGINS")
    if allowed and PLUGIN not in [part.strip() for part in allowed.split(",")]:
        added["SGLANG_PLUGINS"] = f"{allowed},{PLUGIN}"
    arguments += CPU_FLAGS if device == "cpu" else GPU_FLAGS
    if device == "cpu":
        added["SGLANG_USE_CPU_ENGINE"] = "1"
    return ServerCommand((*arguments, *settings.extra), added)


def writing_config_file(file: Path) -> str:
    """A line for a shell that writes what ``--config`` reads, for whoever runs the command by hand."""
    made = """import json, os; print("api-key:", json.dumps(os.environ["KEYELOOP_API_KEY"]))"""
    folder, target = shlex.quote(str(file.parent)), shlex.quote(str(file))
    return f"(umask 077; mkdir -p {folder}; python3 -c {shlex.quote(made)} > {target})"


def config_file_text(key: str) -> str:
    """What ``--config`` reads: YAML, of which a JSON string is a part."""
    return f"api-key: {json.dumps(key)}\n"
