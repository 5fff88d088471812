"""An address as a person or a model wrote it, taken apart; what two readers could understand differently is refused.

Odd notations of a host (``2130706433``, ``0x7f.1``, ``127.1``, ``%31``, full-width digits that become an address, zone
ids) have no honest use here: they are refused as such, before anything is resolved.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import quote, urljoin

import idna

from keyeloop.runtime.errors import ToolError

MAX_CHARS = 4096
DEFAULT_PORTS = {"http": 80, "https": 443}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT = re.compile(r"[0-9]{1,5}")
_KEPT = "%/:=&?~+!$,;'@()*[]|-._"

IP = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Address:
    """Where a page is. ``host`` is lower-case ASCII without brackets or a last dot, ``target`` path and query."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def ip(self) -> IP | None:
        """The host where it is an IP address and no name."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    @property
    def authority(self) -> str:
        """Host and port as in a Host header: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def text(self) -> str:
        """The whole address, written in the one plain way."""
        return f"{self.scheme}://{self.authority}{self.target}"


def read_address(text: str, base: Address | None = None) -> Address:
    """Take an address apart; ``base`` is what a relative one (of a redirect, of a picture) stands on.

    Raises ToolError, with what is wrong and how to write it, for anything but a plain http or https address.
    """
    given = text.strip(" \t\r\n")
    if len(given) > MAX_CHARS:
        raise ToolError(f"the address has {len(given)} characters: at most {MAX_CHARS} are taken")
    if any(ord(letter) <= 0x20 or ord(letter) == 0x7F or letter == "\\" for letter in given):
        raise _refused(given, "holds a space, a control character or a backslash: write these as %20 and the like")
    if base is not None:
        try:
            given = urljoin(base.text, given)
        except ValueError:
            raise _refused(given, "cannot be read: its host is in wrong brackets") from None
    scheme, rest = _split_scheme(given)
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if not authority:
        raise _refused(given, "names no host: write http://host/path")
    if "@" in authority:
        raise _refused(given, "holds a user name or password before its host: leave out what stands before the @")
    host, port = _split_port(authority, given)
    target = rest[len(authority) :].split("#", 1)[0]
    path = target if target.startswith("/") else f"/{target}"
    return Address(scheme, _host(host, given), port or DEFAULT_PORTS[scheme], quote(path, safe=_KEPT, errors="replace"))


def _split_scheme(given: str) -> tuple[str, str]:
    found = _SCHEME.match(given)
    if found is None:
        raise _refused(given, "has no scheme: write https:// in front of it")
    scheme = found[1].lower()
    if scheme not in DEFAULT_PORTS:
        raise _refused(given, f"is of the scheme {scheme}: only http and https pages are opened")
    rest = given[found.end() :]
    if not rest.startswith("//") or rest.startswith("///"):
        raise _refused(given, f"needs exactly two slashes behind {scheme}: and then a host")
    return scheme, rest[2:]


def _split_port(authority: str, given: str) -> tuple[str, int | None]:
    if authority.startswith("["):
        host, closed, after = authority.partition("]")
        host, port = f"{host}{closed}", after.removeprefix(":")
        if not closed or (after and not after.startswith(":")):
            raise _refused(given, "has an IPv6 host that is not in brackets as [2001:db8::1]:port")
    else:
        host, colon, port = authority.partition(":")
        if ":" in port:
            raise _refused(given, "has several colons in its host: write an IPv6 address in brackets")
        del colon
    if not port:
        return host, None
    if not _PORT.fullmatch(port) or not 0 < int(port) < 65536:
        raise _refused(given, f"has the port {port!r}: a port is a number from 1 to 65535")
    return host, int(port)


def _host(host: str, given: str) -> str:
    if "%" in host:
        what = "a zone id" if host.startswith("[") else "a % in its host"
        raise _refused(given, f"has {what}, which no public page needs: write the host in plain letters")
    if host.startswith("["):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            raise _refused(given, f"has the host {host}, which is no IPv6 address") from None
    try:
        name = host.lower() if host.isascii() else idna.encode(host, uts46=True).decode("ascii").lower()
    except UnicodeError:
        raise _refused(given, f"has the host {host!r}, which is no name of a host") from None
    name = name.removesuffix(".")
    labels = name.split(".")
    if _NUMERIC.fullmatch(labels[-1]):
        return _ipv4(name, host, given)
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise _refused(given, f"has the host {host!r}, which is no name of a host")
    return name


def _ipv4(name: str, host: str, given: str) -> str:
    try:
        address = str(ipaddress.IPv4Address(name))
    except ValueError:
        address = ""
    if address != host:
        raise _refused(given, f"writes an IP address in an odd notation ({host}): write it as four decimal numbers")
    return address


def _refused(given: str, why: str) -> ToolError:
    shown = given if len(given) <= 200 else f"{given[:200]}..."
    return ToolError(f"the address {shown!r} {why}")
