"""Who counts a request that is only planned: a model's arithmetic without its weights, a server that is not asked."""

from __future__ import annotations

import os
from typing import Protocol

from keyeloop.agent.models import REPLAY, ModelLike, check_model, load_model, served_model
from keyeloop.model_backend.base import Capabilities, ModelBackend, Request
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

    A server is asked for its list of models, and one that runs our plugin for what that says of it. Raises
    InputError as :func:`keyeloop.agent.models.load_model` does.
    """
    check_model(model)
    if not isinstance(model, str | os.PathLike):
        return model
    name = os.fspath(model)
    if is_address(name):
        return planned_server(Config(model=name))
    return load_model(name) if name.startswith(REPLAY) else LocalCounter(name)


def planning_model(config: Config) -> ModelLike:
    """The model that settings name, such that asking for its capabilities tries nothing out at a server."""
    return planned_server(config) if is_address(config.model) else config.model


def planned_server(config: Config) -> ModelBackend:
    """The client of the address that settings name, which asks what a server says of itself and tries nothing out."""
    return served_model(config.model, config.model_copy(update={"tries": 1}), try_out=False)
