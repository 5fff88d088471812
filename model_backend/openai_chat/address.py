"""``http://host:port/v1#name``: where a model is served, and under which name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from keyeloop.runtime.errors import InputError

SCHEMES = {"http": "http", "https": "https"}
FORM = "http://host:port/v1#name"


@dataclass(frozen=True)
class Address:
    """A served model. ``str()`` gives the form that :func:`parse_address` reads."""

    base: str
    """Such as ``http://127.0.0.1:8000/v1``, without a slash at its end."""
    name: str | None
    """None until the server is asked what it serves."""
    loopback: bool
    """The server is on this machine; no proxy is asked."""
    scheme: str = ""
    """What stands before ``://`` where that is not the protocol, such as ``sglang``."""

    def __str__(self) -> str:
        return f"{self.shown}#{self.name}" if self.name else self.shown

    @property
    def shown(self) -> str:
        """The address as it was written, without a name."""
        return f"{self.scheme}://{self.base.partition('://')[2]}" if self.scheme else self.base


def is_address(model: str) -> bool:
    """Whether a model's name is an address: whatever begins with a scheme, so that a mistyped one is told."""
    return "://" in model


def parse_address(text: str, *, schemes: Mapping[str, str] = SCHEMES, form: str = FORM, path: str = "/v1") -> Address:
    """Read an address. Without a path ``path`` is meant; ``schemes`` tells the protocol behind each scheme.

    Raises InputError, one line with the cure, for another scheme, no host, a bad port, a query, or a user and password
    (which are not repeated).
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(f"model address cannot be read ({error}): write {form}") from None
    if parts.username is not None or parts.password is not None:
        raise InputError(f"model address holds a user or password: write {form} and set KEYELOOP_API_KEY")
    if parts.query:
        raise InputError(f"model address holds a query after '?': write {form} and set KEYELOOP_API_KEY for a key")
    scheme = parts.scheme.lower()
    if scheme not in schemes:
        raise InputError(f"model address {text!r} begins with {parts.scheme}://: write {form}")
    if not host or any(char.isspace() or not char.isprintable() for char in text):
        raise InputError(f"model address {text!r} {'holds white space' if host else 'names no host'}: write {form}")
    place = f"[{host}]" if ":" in host else host
    below = parts.path.rstrip("/") or path
    base = f"{schemes[scheme]}://{place}{'' if port is None else f':{port}'}{below}"
    return Address(base, parts.fragment or None, _is_loopback(host), scheme if schemes[scheme] != scheme else "")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
