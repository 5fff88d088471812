"""What a provider is, and how one fails."""

from __future__ import annotations

import os
from typing import Protocol

from keyeloop.runtime.errors import ConfigError
from keyeloop.tools.search.result import SearchResult


class SearchProvider(Protocol):
    """Something that finds pages."""

    @property
    def name(self) -> str:
        """As settings name it."""

    @property
    def place(self) -> str:
        """Where it is asked, without keys: answers of different places are kept apart."""

    async def search(self, query: str, limit: int) -> list[SearchResult]:
        """At most ``limit`` results, best first. Raises ProviderFailed."""


class ProviderFailed(Exception):
    """Raised when a provider gave no answer: a clause that begins with a verb and never holds a key."""


def key_of(name: str, given: str | None, *variables: str) -> str:
    """The key that was given, else the first of the environment's ``variables`` that is set.

    Raises ConfigError, naming the variable, where there is none, and for one that cannot stand in a header.
    """
    key = (given or next((os.environ[one] for one in variables if os.environ.get(one)), "")).strip()
    if not key:
        raise ConfigError(f"the search provider {name} needs a key: set {' or '.join(variables)} in the environment")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"the key in {variables[0]} holds what no key has: a space, a line break, not ASCII")
    return key
