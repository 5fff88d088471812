"""What a person asks of a server."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from keyeloop.model_backend.sglang.serve.memory import DEFAULT_SHARE, IndexMode, Quantization
from keyeloop.runtime.errors import ConfigError

Device = Literal["auto", "cuda", "cpu"]


@dataclass(frozen=True)
class ServeSettings:
    """The options of ``keyeloop serve``; None leaves the choice to the plan."""

    model: str
    device: Device = "auto"
    quantization: Quantization = "none"
    tensor_parallel: int = 1
    context_tokens: int | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    index: IndexMode = "exact"
    memory_share: float = DEFAULT_SHARE
    """Part of the free memory for weights and caches."""
    picture_cache_mib: int | None = None
    """SGLang's cache of picture embeddings."""
    media_store: Path | None = None
    """Folder that clients share: what lies there is named by its sha256; None: pictures are sent by value."""
    key_file: Path | None = None
    revision: str | None = None
    python: str = sys.executable
    """The Python whose SGLang serves."""
    extra: tuple[str, ...] = ()
    """Further arguments of ``sglang.launch_server``; they win over ours."""


_CHOICES: tuple[tuple[str, str, Any], ...] = (
    ("device", "--device", Device),
    ("quantization", "--quantization", Quantization),
    ("index", "--indexer", IndexMode),
)


def read_settings(**options: Any) -> ServeSettings:
    """Settings as a command line gives them. ConfigError for a word that is none of an option's."""
    for name, flag, kind in _CHOICES:
        if options.get(name) not in (None, *get_args(kind)):
            raise ConfigError(f"{flag} {options[name]}: unknown; take {' or '.join(get_args(kind))}")
    return ServeSettings(**options)
