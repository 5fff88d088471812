"""Budgets beside a picture or a clip: SGLang's protocol drops fields that it does not know, so it is told of them."""

from __future__ import annotations

from typing import Any

_PARTS = (
    "ChatCompletionMessageContentImageURL",
    "ChatCompletionMessageContentVideoURL",
    "ChatCompletionMessageContentImagePart",
    "ChatCompletionMessageContentVideoPart",
)
_AROUND = ("ChatCompletionMessageGenericParam", "ChatCompletionMessageUserParam", "ChatCompletionRequest")


def keep_budgets(protocol: Any) -> None:
    """Let pictures and clips of a chat request keep ``preprocess_kwargs``, inside their URL object or beside it.

    Must come before the web application is made, which compiles the request's model. ``protocol`` is SGLang's module.
    """
    for name in _PARTS:
        part = getattr(protocol, name)
        part.model_config["extra"] = "allow"
        part.model_rebuild(force=True)
    for name in _AROUND:
        getattr(protocol, name).model_rebuild(force=True)
