"""The small files of a checkpoint, read leniently: what is absent or broken is a finding, not an error.

Nothing of a checkpoint is ever run. Its Python files are read as text; its chat template is rendered in a sandbox.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from keyeloop.runtime.errors import InputError

TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
MOST_BYTES = 64 << 20
"""Of one small file; a tokenizer has about 11 MB."""


class Checkpoint:
    """A folder that holds config.json and some of the other small files."""

    def __init__(self, folder: Path) -> None:
        """Raises InputError for a folder that is not there or has no readable config.json."""
        self.folder = folder
        if not (folder / "config.json").is_file():
            raise InputError(f"{folder}: no config.json; name the folder of a checkpoint, or a server's address")
        config = self.json("config.json")
        if not config:
            raise InputError(f"{folder}/config.json: not a JSON object; download it again")
        self.config: Mapping[str, Any] = config

    def text(self, name: str) -> str | None:
        """A file's text; None where it is absent, too large or no text."""
        path = self.folder / name
        try:
            return path.read_text(encoding="utf-8") if path.stat().st_size <= MOST_BYTES else None
        except (OSError, UnicodeDecodeError):
            return None

    def json(self, name: str) -> Mapping[str, Any]:
        """A file's JSON object; empty where there is none."""
        try:
            found = json.loads(self.text(name) or "")
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def setting(self, key: str, section: str | None = None) -> Any:
        """A value of config.json, of its ``text_config`` first; None where it is absent."""
        text = self.config.get("text_config")
        text = text if isinstance(text, Mapping) else {}
        if section is None:
            return text.get(key, self.config.get(key))
        found = text.get(section, self.config.get(section))
        return found.get(key) if isinstance(found, Mapping) else None

    @cached_property
    def token_ids(self) -> Mapping[str, int] | None:
        """Special and added tokens by name; None where no file tells them."""
        found: dict[str, int] = {}
        listed = self.json("tokenizer.json").get("added_tokens")
        for one in listed if isinstance(listed, list) else []:
            if isinstance(one, dict) and isinstance(one.get("id"), int):
                found[str(one.get("content"))] = one["id"]
        decoder = self.json("tokenizer_config.json").get("added_tokens_decoder")
        for number, one in (decoder if isinstance(decoder, dict) else {}).items():
            if isinstance(one, dict) and str(number).isdigit():
                found.setdefault(str(one.get("content")), int(number))
        for content, number in self.json("added_tokens.json").items():
            if isinstance(number, int):
                found.setdefault(content, number)
        return found or None

    @cached_property
    def template(self) -> tuple[str, str] | None:
        """File and text of the chat template; None where there is none."""
        for name in TEMPLATE_FILES:
            found: Any = self.text(name) if name.endswith(".jinja") else self.json(name).get("chat_template")
            if isinstance(found, list):  # several by name
                found = next((one.get("template") for one in found if one.get("name") == "default"), None)
            if isinstance(found, str) and found.strip():
                return name, found
        return None

    @cached_property
    def code(self) -> Mapping[str, str]:
        """Text of the checkpoint's own Python files by name."""
        names = sorted(path.name for path in self.folder.glob("*.py") if path.name != "__init__.py")
        return {name: text for name in names if (text := self.text(name)) is not None}

    def code_like(self, *prefixes: str) -> Mapping[str, str]:
        """Those whose names begin so."""
        return {name: text for name, text in self.code.items() if name.startswith(prefixes)}
