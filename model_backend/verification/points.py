"""What public material about Keye-VL-2.0 leaves open, and a checkpoint's small files can settle."""

from __future__ import annotations

POINTS = {
    1: "sizes, rope, vocabulary and special tokens",
    2: "the text around every frame of a video",
    3: "how pictures are sized, normalised and cut into patches",
    4: "the chat template: thinking, tools, pictures in tool turns",
    5: "how tokens are drawn by default",
    6: "the lightning indexer",
    7: "what the chunk sizes of the reference code do",
    8: "features of inner vision layers",
    9: "the layout of the shipped prefill kernel's union buffer",
}
"""Title by number."""
