"""Pictures and clips of a request: named, refused or loaded, sized, and laid out in Keye's own tokens.

``register_media`` is called by the plugin in every process of a server. See :mod:`keyeloop.model_backend.sglang.wire`
for how pictures and clips are named.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from multiprocessing import parent_process
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keyeloop.model_backend.keye.config import KeyeConfig


def register_media() -> None:
    """Replace SGLang's loaders, keep budgets in chat requests, and name the tokenizer as all that a folder needs."""
    from sglang.srt.multimodal import customized_mm_processor_utils

    from keyeloop.model_backend.sglang.plugin.config import MODEL_TYPE
    from keyeloop.model_backend.sglang.plugin.media.refusing import register_refusals

    register_refusals()
    customized_mm_processor_utils._CUSTOMIZED_MM_PROCESSOR[MODEL_TYPE] = TokenizerOnly
    if parent_process() is None:  # where the web application is made
        from sglang.srt.entrypoints.openai import protocol

        from keyeloop.model_backend.sglang.plugin.media.fields import keep_budgets

        keep_budgets(protocol)


def media_facts(config: KeyeConfig) -> dict[str, Any]:
    """What a client may use here, for the server's status: clips as one part, raw replies, references, sizes."""
    from keyeloop.model_backend.local.counter import limits_of
    from keyeloop.model_backend.sglang.plugin.media.store import ReferencedStore
    from keyeloop.model_backend.sglang.shared_store import IDENTITY, STORE, identity_of

    store = ReferencedStore.from_environment(os.environ)
    return {
        "clips": True,
        "raw_replies": True,
        STORE: None if store is None else str(store.root),
        IDENTITY: None if store is None else identity_of(store.root),
        "limits": asdict(limits_of(config)),
    }


class TokenizerOnly:
    """Stands where SGLang looks for a folder's own processor, whose code is never run: the tokenizer is all we need."""

    @classmethod
    def from_pretrained(cls, path: str, *_: Any, revision: str | None = None, **__: Any) -> Any:
        """The tokenizer of a folder."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(path, revision=revision)
