"""How a chat request becomes a prompt: by keyeloop's own template and tokenizer, not by a text that is read again.

SGLang renders a request to text, in which the name of a special token in a user's words, a tool's result or a page
becomes that token. Here token ids are made piece by piece and handed on as if the client had sent them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keyeloop.model_backend.sglang.plugin.media.chat_messages import media_of, prompt_of
from keyeloop.model_backend.sglang.wire import RAW_REPLIES
from keyeloop.runtime.errors import KeyeloopError

METHOD = "_process_messages"
_TAKEN = "keyeloop_original"


def take_over_chat() -> None:
    """Replace SGLang's rendering of chat requests in this process, once."""
    from sglang.srt.entrypoints.openai.serving_chat import OpenAIServingChat

    original = getattr(OpenAIServingChat, METHOD)
    if hasattr(original, _TAKEN):
        return

    def processed(serving: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        return process_messages(original, serving, request, *args, **kwargs)

    setattr(processed, _TAKEN, original)
    setattr(OpenAIServingChat, METHOD, processed)


def process_messages(original: Callable[..., Any], serving: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
    """Render ``request`` for a Keye server, then let SGLang do the rest (constraints, stops).

    ValueError, which SGLang answers as a bad request, for content that the model does not take.
    """
    tokenizer = getattr(serving.tokenizer_manager.mm_processor, "keye_tokenizer", None)
    if tokenizer is None:
        return original(serving, request, *args, **kwargs)
    messages = [message.model_dump() for message in request.messages]
    tools = [tool.model_dump() for tool in request.tools or ()]
    raw = bool((request.chat_template_kwargs or {}).get(RAW_REPLIES))
    try:
        if request.input_ids is None:
            goes_on = bool(getattr(request, "continue_final_message", False))
            prompt = prompt_of(messages, tools, tokenizer, raw_replies=raw, open_reply=not goes_on)
            request.input_ids = prompt.ids
            pictures, clips = prompt.pictures, prompt.clips
        else:
            pictures, clips = media_of(messages)
    except KeyeloopError as error:
        raise ValueError(str(error)) from None
    if raw:
        request.separate_reasoning = False
        request.skip_special_tokens = False
        request.tool_choice = "none"  # the tools stand in the prompt already; nothing parses the calls out of the reply
    result = original(serving, request, *args, **kwargs)
    result.image_data, result.video_data, result.audio_data = pictures or None, clips or None, None
    return result
