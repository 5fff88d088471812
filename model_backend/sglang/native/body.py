"""A request to ``/generate`` as JSON, put together from pieces that were written down before."""

from __future__ import annotations

import json
from typing import Any

from keyeloop.model_backend.base import Request
from keyeloop.model_backend.sglang.native.assembling import Words
from keyeloop.model_backend.sglang.native.naming import PictureNames
from keyeloop.model_backend.sglang.native.prompt import NativePrompt
from keyeloop.runtime.media import MediaStore

PIECES = 64
"""A stream that repeats all tokens so far in every event is cut into about this many at most, or it would grow with
the square of the reply."""
NEVER = -100.0
"""Bias of a token that is not to be drawn."""


def body(
    request: Request,
    prompt: NativePrompt,
    names: PictureNames,
    media: MediaStore,
    words: Words,
    *,
    new_tokens_only: bool,
    tag: str | None = None,
) -> bytes:
    """The whole request, to be streamed back with the logarithm of every token's probability.

    ``tag`` holds calls to it; a server with a reasoning parser leaves thinking out of that.
    """
    made = [b'{"input_ids":[', prompt.written, b"]"]
    if prompt.stills:
        made += [b',"image_data":[', b",".join(names.still(picture, media) for picture in prompt.stills), b"]"]
    if prompt.clips:
        made += [b',"video_data":[', b",".join(names.clip(clip, media) for clip in prompt.clips), b"]"]
    sampling = json.dumps(sampling_params(request, words, new_tokens_only=new_tokens_only, tag=tag)).encode()
    made += [b',"sampling_params":', sampling, b',"return_logprob":true,"stream":true']
    made.append(b',"require_reasoning":true}' if tag is not None else b"}")
    return b"".join(made)


def sampling_params(request: Request, words: Words, *, new_tokens_only: bool, tag: str | None = None) -> dict[str, Any]:
    """How tokens are drawn, in SGLang's names; where no call is allowed the token that opens one is never drawn."""
    sampling = request.sampling
    made: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or -1,
        "max_new_tokens": sampling.max_tokens,
        "stop_token_ids": [words.end],
        "skip_special_tokens": False,
        "stream_interval": 1 if new_tokens_only else max(1, sampling.max_tokens // PIECES),
    }
    if sampling.seed is not None:
        made["sampling_seed"] = sampling.seed
    if tag is not None:
        made["structural_tag"] = tag
    if not request.allow_calls:
        made["logit_bias"] = {str(words.call_open): NEVER}
    return made
