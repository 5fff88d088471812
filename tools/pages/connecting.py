"""Connections to addresses that were checked: a name is resolved once, and that very address is connected to."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import httpcore

from keyeloop.runtime.errors import ToolError
from keyeloop.tools.pages.address import IP
from keyeloop.tools.pages.permits import Permits

CONNECT_S = 6.0
"""For one address of a host."""
MAX_TRIED = 4


class Resolver(Protocol):
    """Turns names into addresses."""

    async def resolve(self, host: str, port: int) -> Sequence[IP]:
        """All addresses of ``host``, best first. Raises OSError where it has none."""


class SystemResolver:
    """The machine's own way to resolve names."""

    async def resolve(self, host: str, port: int) -> Sequence[IP]:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return [ipaddress.ip_address(str(one[4][0]).partition("%")[0]) for one in found]


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """The network as httpcore sees it: every connection is resolved, checked and pinned here, and nowhere else."""

    def __init__(self, permits: Permits, resolver: Resolver) -> None:
        self._permits, self._resolver = permits, resolver
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to one of the host's addresses, all of which must be permitted. Raises ToolError where one is not."""
        addresses = await self._addresses(host, port)
        for ip in addresses:
            self._permits.check_ip(host, port, ip)
        patience_s = CONNECT_S if timeout is None else min(timeout, CONNECT_S)
        failure: Exception = httpcore.ConnectError("no address")
        for ip in addresses[:MAX_TRIED]:
            try:
                stream = await self._inner.connect_tcp(str(ip), port, patience_s, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout, OSError) as error:
                failure = error
                continue
            return await self._checked(stream, host, port)
        raise ToolError(f"{host}:{port} could not be connected to ({type(failure).__name__}): is the address right?")

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Never: pages are not on this machine's sockets."""
        raise ToolError(f"a page cannot be on the local socket {path}")

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)

    async def _addresses(self, host: str, port: int) -> list[IP]:
        try:
            return [ipaddress.ip_address(host)]
        except ValueError:
            pass
        try:
            found = list(dict.fromkeys(await self._resolver.resolve(host, port)))
        except (OSError, UnicodeError) as error:
            raise ToolError(f"there is no host {host!r} ({error}): check how it is written") from None
        if not found:
            raise ToolError(f"there is no host {host!r}: it has no address")
        return found

    async def _checked(self, stream: httpcore.AsyncNetworkStream, host: str, port: int) -> httpcore.AsyncNetworkStream:
        """The stream, once the other end says itself to be where it may be."""
        other = stream.get_extra_info("server_addr")
        try:
            if other is not None:
                self._permits.check_ip(host, port, ipaddress.ip_address(str(other[0]).partition("%")[0]))
        except BaseException:
            await stream.aclose()
            raise
        return stream
