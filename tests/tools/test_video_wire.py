"""The framed pipe between host and decoding child."""

from __future__ import annotations

import os
import socket

import pytest

from keyeloop.tools.confined.wire import HEAD, WireBroken, WireClosed, receive, send


def test_frames_of_the_wire_arrive_whole_and_lies_are_caught() -> None:
    left, right = socket.socketpair()
    with left, right:
        fd = os.open("/dev/null", os.O_RDONLY)
        send(left, {"op": "x"}, b"\1\2\3", fd=fd)
        header, payload, sent = receive(right)
        assert (header, payload) == ({"op": "x"}, b"\1\2\3")
        assert sent is not None and os.path.sameopenfile(sent, fd)
        os.close(fd)
        os.close(sent)
        for lie in (HEAD.pack(1 << 30, 0), HEAD.pack(2, 1 << 31), HEAD.pack(2, 0) + b"[]", HEAD.pack(1, 0) + b"{"):
            left.sendall(lie)
            with pytest.raises(WireBroken):
                receive(right)
        left.sendall(HEAD.pack(10, 0) + b"{")
        left.close()
        with pytest.raises(WireClosed):
            receive(right)
