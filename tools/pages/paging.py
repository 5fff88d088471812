"""A long text in parts that a model reads one at a time."""

from __future__ import annotations

PART_CHARS = 12_000


def parts_of(text: str, part_chars: int = PART_CHARS) -> tuple[str, ...]:
    """``text`` cut into parts of at most ``part_chars``, where a paragraph ends if there is one, else a line or word.

    Nothing but white space at the cuts is lost; an empty text has one empty part.
    """
    parts: list[str] = []
    rest = text.strip()
    while len(rest) > part_chars:
        cut = _cut(rest, part_chars)
        parts.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return (*parts, rest) if rest or not parts else tuple(parts)


def _cut(text: str, most: int) -> int:
    for border in ("\n\n", "\n", ". ", " "):
        at = text.rfind(border, most // 2, most)
        if at > 0:
            return at + len(border)
    return most
