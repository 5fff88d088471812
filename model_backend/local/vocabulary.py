"""What every token id stands for, in bytes, and which ids are special."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Vocabulary:
    """The bytes of every token id of a byte-level ``tokenizer.json``."""

    tokens: tuple[bytes, ...]
    """By id. A special token has the bytes of its name; an id that is not in use has none."""
    special: frozenset[int]
    """Ids that stand for structure and never for text."""

    @classmethod
    def read(cls, path: Path) -> Vocabulary:
        """Read the vocabulary of a Hugging Face ``tokenizer.json`` with a byte-level alphabet."""
        table = json.loads(path.read_text(encoding="utf-8"))
        alphabet = _byte_alphabet()
        tokens: dict[int, bytes] = {}
        for token, index in table["model"]["vocab"].items():
            tokens[index] = bytes(alphabet[char] for char in token) if set(token) <= alphabet.keys() else token.encode()
        added: list[dict[str, Any]] = table["added_tokens"]
        for entry in added:
            tokens[entry["id"]] = entry["content"].encode()
        special = frozenset(entry["id"] for entry in added if entry["special"] or _names_structure(entry["content"]))
        return cls(tuple(tokens.get(index, b"") for index in range(max(tokens) + 1)), special)

    def decode(self, ids: list[int]) -> str:
        """The text of token ids; bytes that are not UTF-8 become replacement characters."""
        return b"".join(self.tokens[index] for index in ids).decode("utf-8", errors="replace")


def _names_structure(content: str) -> bool:
    """Qwen's tokenizer holds ``<think>`` and ``<tool_call>`` as added tokens that are not marked special."""
    return content.startswith("<") and content.endswith(">") and " " not in content and "\n" not in content


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes (openai/gpt-2 ``encoder.py``, ``bytes_to_unicode``), inverted."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + index): byte for index, byte in enumerate(others)}
