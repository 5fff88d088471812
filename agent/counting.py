"""Who counts a request that is only planned: a model's arithmetic without its weights, a server that is not asked."""

from __future__ import annotations

import os
from typing import Protocol

from keyeloop.agent.models import REPLAY, ModelLike, check_model, load_model
from keyeloop.model_backend.base import Capabilities, Request
from keyeloop.model_backend.local.counter import LocalCounter
from keyeloop.model_backend.openai_chat.address import is_address
from keyeloop.runtime.config import Config
from keyeloop.runtime.content import Usage


class Counting(Protocol):
    """What planning asks of a backend."""

    def capabilities(self) -> Capabilities:
        """Facts about the model."""

    def count_tokens(self, request: Request) -> Usage:
        """``input_tokens`` and ``visual_tokens`` of a request."""


def counting_model(model: ModelLike) -> Counting:
    """Counts for ``model`` as its backend would; for a folder from its config and tokenizer alone, without torch.

    A server is asked for its list of models at most, when the context is needed. Raises InputError as
    :func:`keyeloop.agent.models.load_model` does.
    """
    check_model(model)
    if not isinstance(model, str | os.PathLike):
        return model
    name = os.fspath(model)
    if is_address(name):
        from keyeloop.model_backend.openai_chat.backend import OpenAIChat

        return OpenAIChat(name, pictures="user", call_form="native", tries=1)
    return load_model(name) if name.startswith(REPLAY) else LocalCounter(name)


def planning_model(config: Config) -> ModelLike:
    """The model that settings name, such that asking for its capabilities tries nothing out at a server."""
    if not is_address(config.model):
        return config.model
    from keyeloop.model_backend.openai_chat.backend import OpenAIChat

    pictures, call_form = config.pictures or "user", config.call_form or "native"
    return OpenAIChat(
        config.model, context_tokens=config.context_tokens, pictures=pictures, call_form=call_form, tries=1
    )
