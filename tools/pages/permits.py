"""What may be connected to: the public internet on the ports of the web, and what the user allowed by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from keyeloop.runtime.errors import ConfigError, ToolError
from keyeloop.tools.pages.address import IP, Address, read_address
from keyeloop.tools.pages.networks import NEVER, ONLY_BY_NUMBER, place_of

WEB_PORTS = frozenset({80, 443, 8080, 8443})


@dataclass(frozen=True)
class Allowed:
    """One host that may be on a private network; any port of it where ``port`` is None."""

    host: str
    port: int | None


class Permits:
    """Decides about addresses before and after their names are resolved."""

    def __init__(self, allow: Iterable[str] = ()) -> None:
        """``allow`` are hosts as in addresses, each with or without a port: ``localhost:8000``, ``wiki.lan``.

        Raises ConfigError for one that is no host.
        """
        self.allowed = frozenset(_allowed(entry) for entry in allow)

    def check_address(self, address: Address) -> None:
        """Raises ToolError for a port that pages do not have, and a forbidden IP address that stands there openly."""
        if not self._named(address.host, address.port) and address.port not in WEB_PORTS:
            ports = ", ".join(map(str, sorted(WEB_PORTS)))
            raise ToolError(
                f"the address {address.text} is on port {address.port}: pages are opened on ports {ports}, others only "
                "where the user allowed that host and port"
            )
        if address.ip is not None:
            self.check_ip(address.host, address.port, address.ip)

    def check_ip(self, host: str, port: int, ip: IP) -> None:
        """Raises ToolError where ``host`` stands for an address that it may not be connected to by."""
        place = place_of(ip)
        if place is None:
            return
        literal = host == str(ip)
        if self._named(host, port) and place not in NEVER and (literal or place not in ONLY_BY_NUMBER):
            return
        where = f"{ip} is" if literal else f"{host} stands for {ip}, which is"
        raise ToolError(
            f"{where} {place}: only pages on the public internet are opened; the user may allow a host by name"
        )

    def _named(self, host: str, port: int) -> bool:
        return any(one.host == host and one.port in (None, port) for one in self.allowed)


def _allowed(entry: str) -> Allowed:
    try:
        address = read_address(f"http://{entry}")
    except ToolError as error:
        raise ConfigError(f"{entry!r} is no host to allow: write host or host:port ({error})") from None
    if address.target != "/" or entry.endswith("/"):
        raise ConfigError(f"{entry!r} is no host to allow: write host or host:port, without a path")
    return Allowed(address.host, address.port if entry.endswith(f":{address.port}") else None)
