"""Keys and passwords kept out of records: wherever one would be written, a mark stands in its place."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from urllib.parse import quote

MARK = b"[secret]"
NAMES = ("KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIALS")
"""How names of environment variables end that hold secrets."""
LEAST_CHARS = 8
"""A shorter value would be found in innocent words."""


class Concealer:
    """Knows values that no record may hold, in each form in which they could get into a line of JSON."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._forms: set[bytes] = set()
        self.add(secrets)

    def add(self, secrets: Iterable[str]) -> None:
        """Conceal these too. What is shorter than :data:`LEAST_CHARS` is left as it is."""
        for secret in secrets:
            value = secret.strip()
            if len(value) < LEAST_CHARS:
                continue
            for form in (value, quote(value, safe="")):
                for ascii_only in (True, False):
                    self._forms.add(json.dumps(form, ensure_ascii=ascii_only)[1:-1].encode("utf-8", "replace"))

    def conceal(self, line: bytes) -> bytes:
        """The line with every secret replaced by a mark."""
        for form in self._forms:
            if form in line:
                line = line.replace(form, MARK)
        return line


def environment_secrets(environment: Mapping[str, str] | None = None) -> list[str]:
    """Values of environment variables whose names say that they are secret, such as ``TAVILY_API_KEY``."""
    given = os.environ if environment is None else environment
    return [value for name, value in given.items() if name.upper().endswith(NAMES)]
