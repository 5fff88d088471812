"""Coded pictures that no other is built on, told by their first bytes, so that they never reach the decoder."""

from __future__ import annotations

LENGTH_AT, LEAST_BYTES = 4, 7
_BUILT_ON = 0x60
"""``nal_ref_idc`` (ITU-T H.264 7.4.1): zero in slices, and in what comes with them, that nothing refers to."""


def length_bytes(codec: str, setup: bytes | None) -> int:
    """How long the lengths before the units of an H.264 packet are (ISO/IEC 14496-15 5.3.3.1); 0 where it has none."""
    if codec != "h264" or setup is None or len(setup) < LEAST_BYTES or setup[0] != 1:
        return 0
    return (setup[LENGTH_AT] & 3) + 1


def is_unbuilt(packet: memoryview, length: int) -> bool:
    """Whether nothing in a packet is built on; False where that is not told, or its ``length`` bytes are at odds."""
    at = 0
    while length and at + length < len(packet):
        if packet[at + length] & _BUILT_ON:
            return False
        at += length + int.from_bytes(packet[at : at + length], "big")
    return 0 < at == len(packet)
