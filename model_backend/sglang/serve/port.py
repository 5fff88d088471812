"""Whether a server can listen where it is told to."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from keyeloop.runtime.errors import InputError

TRIED_PORTS = 50


def check_port(host: str, port: int) -> None:
    """Raise InputError, naming the next free port, where ``host`` and ``port`` are taken or not of this machine."""
    problem = _problem(host, port)
    if problem is None:
        return
    free = (
        None
        if not 0 < port < 65536
        else next((near for near in range(port + 1, min(port + TRIED_PORTS, 65535)) if not _problem(host, near)), None)
    )
    cure = f"give --port {free}, which is free, or stop what listens there" if free else "give --host and --port"
    raise InputError(f"cannot listen on {host}, port {port}: {problem}; {cure}")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def url(host: str, port: int) -> str:
    """Where this machine reaches a server that listens on ``host``; every address is also reached by loopback."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{here}]' if ':' in here else here}:{port}"


def _problem(host: str, port: int) -> str | None:
    if not 0 < port < 65536:
        return "a port is a number from 1 to 65535"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: a closed connection may linger
            trial.bind(address)
            trial.listen(1)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return None
