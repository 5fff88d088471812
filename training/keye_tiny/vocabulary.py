"""Builds keye-tiny's tokenizer: 256 bytes, the real special tokens, and phrases of the template and of JSON schemas.

Content stays bytes, digits single, so that an unseen tool name or word has no untrained token in it; the phrases only
shorten what every prompt repeats.

    python -m training.keye_tiny.vocabulary model_backend/keye_tiny/tokenizer.json
"""

from __future__ import annotations

import sys
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from keyeloop.agent.prompt import SYSTEM
from keyeloop.model_backend.keye.template import TOOLS_CLOSE, TOOLS_OPEN

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|frame|>",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
)
SIZE = 384
"""Rows of the embedding table; what the phrases leave free is unused."""

JSON_TYPES = ("string", "number", "integer", "boolean")
JSON_PHRASES = (
    '{"type": "function", "function": {"name": "',
    '", "description": "',
    '", "parameters": {"type": "object", "properties": {"',
    '": {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4, "description": "',
    '": {"type": "array", "items": {"type": "',
    *(f'": {{"type": "{name}"}}, "' for name in JSON_TYPES),
    *(f'": {{"type": "{name}"}}}}, "required": ["' for name in JSON_TYPES),
    *(f'": {{"type": "{name}", "description": "' for name in JSON_TYPES),
    *(f'": {{"type": "{name}", "default": ' for name in JSON_TYPES),
    '", "type": "string"',
    '", "type": "integer"',
    '", "type": "number"',
    '": {"enum": ["',
    '", "enum": ["',
    '"}, "',
    '}, "',
    '}}, "required": ["',
    '"}}, "required": ["',
    '"]}}}',
    '"]}, "',
    '{"name": "',
    '", "arguments": {"',
    '{"name": <function-name>, "arguments": <args-json-object>}',
    '", "',
    '": "',
    '": [',
    '": ',
    ', "',
    '"}}',
    "}}",
    "]}}",
)
WORD_PHRASES = (
    "clip_video",
    "web_search",
    "python",
    "zoom",
    "video-1",
    "video-",
    "start_s",
    "end_s",
    "max_frames",
    "print(",
    "Look at ",
    "Too small; zoom in.",
    "Not there: ",
    " ends at ",
    " is past its end.",
    "Error: ",
    "the board is empty at ",
    "there is no small sign at ",
    "Done: ",
    " s, 1280x720",
    "Look at frames of a video between two times.",
    "Look closer at a box of a view, cut from the source.",
    "Run Python code in a sandbox; print what you need.",
    "Search the documents.",
    "name of the video",
    "seconds",
    "default ",
    "handle of a view",
    "x0,y0,x1,y1 in 0..1000 of the view",
    "\n\n",
)
SYSTEM_END = "End with a short answer"


def phrases() -> list[str]:
    """Every multi-byte token that is not special, longest first."""
    template = [piece for text in (TOOLS_OPEN, "\n\n" + TOOLS_OPEN, TOOLS_CLOSE) for piece in _around_special(text)]
    head, tail = SYSTEM.split(SYSTEM_END)
    sentences = [*(f"{part}. " for part in head.rstrip(". ").split(". ")), SYSTEM_END + tail]
    starts = ["system\n", "user\n", "assistant\n"]
    found = {*template, *sentences, *starts, *JSON_PHRASES, *WORD_PHRASES}
    return sorted((phrase for phrase in found if len(phrase.encode()) > 1), key=lambda text: (-len(text), text))


def build() -> Tokenizer:
    """The tokenizer: bytes by a merge-less byte-level BPE, then special tokens, then phrases."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(phrase, normalized=False) for phrase in phrases()])
    return tokenizer


def _around_special(text: str) -> list[str]:
    for token in SPECIAL:
        text = text.replace(token, "\0")
    return [piece for piece in text.split("\0") if piece]


def main() -> None:
    path = Path(sys.argv[1])
    tokenizer = build()
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    print(f"{path}: {tokenizer.get_vocab_size(with_added_tokens=True)} tokens of {SIZE}")


if __name__ == "__main__":
    main()
