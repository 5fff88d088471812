"""What can go wrong with a file, in words that the tools put its name in front of."""

from __future__ import annotations


class Unusable(Exception):
    """Raised when a file cannot be looked at: a clause that begins with a verb, says the cause, then the cure."""
